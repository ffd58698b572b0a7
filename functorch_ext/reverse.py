"""Reverse mode: ``grad``, ``grad_and_value`` and ``vjp``."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

from torch import Tensor

from functorch_ext import _C
from functorch_ext._argnames import Argnames, by_names
from functorch_ext._arguments import (
    Argnums,
    check_differentiable,
    check_outputs,
    release_aux,
    replaced,
    selected,
    split_aux,
)
from functorch_ext._describing import structure_of
from functorch_ext._dynamo.entry import EAGER, call_transform
from functorch_ext._pytree import Tree, flatten, map_tensors, unflatten

_Params = ParamSpec("_Params")

_MOST_ARGUMENTS = 1 << 30  # what the engine counts with; more is out of range in any case


def grad(
    func: Callable[_Params, Any],
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    argnames: Argnames | None = None,
) -> Callable[_Params, Any]:
    """The gradient of a function that returns a number.

    Args:
        func: Returns a tensor without dimensions or, with ``has_aux``, a pair of one and anything.
        argnums: The positional argument to differentiate by, or a tuple of several. Each is a
            floating-point or complex tensor, or a container of such.
        has_aux: ``func`` returns ``(output, aux)``; aux is passed on, not differentiated.
        argnames: Keyword arguments to differentiate by instead: a name, or a tuple of several.

    Returns:
        A function of the arguments of ``func`` that returns the gradient, shaped as the argument
        is (a tuple of gradients for a tuple of argnums), or ``(gradient, aux)``. An argument that
        the output doesn't depend on has a gradient of zeros.

    Raises:
        RuntimeError: the output isn't a tensor without dimensions, ``argnums`` is out of range, or
            an argument can't be differentiated by.

    Example::

        >>> functorch_ext.grad(torch.sin)(torch.tensor(0.0))
        tensor(1.)
    """
    if argnames is not None:
        transform = functools.partial(grad, has_aux=has_aux)
        return by_names("grad", transform, func, argnums, argnames)
    compute = gradient_function("grad", func, argnums, has_aux, with_value=False)

    @functools.wraps(func)
    def gradient(*args: _Params.args, **kwargs: _Params.kwargs) -> Any:
        if not EAGER:
            return call_transform("grad", func, (argnums, has_aux), args, kwargs)
        gradients, _, aux = compute(args, kwargs)
        return (gradients, aux) if has_aux else gradients

    return gradient


def grad_and_value(
    func: Callable[_Params, Any],
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    argnames: Argnames | None = None,
) -> Callable[_Params, tuple[Any, Any]]:
    """The gradient of a function that returns a number, and that number, in one pass.

    Args:
        func: As for :func:`grad`.
        argnums: As for :func:`grad`.
        has_aux: As for :func:`grad`.
        argnames: As for :func:`grad`.

    Returns:
        A function that returns ``(gradient, value)``, or ``(gradient, (value, aux))`` with
        ``has_aux``.

    Raises:
        RuntimeError: as for :func:`grad`.

    Example::

        >>> functorch_ext.grad_and_value(torch.exp)(torch.tensor(0.0))
        (tensor(1.), tensor(1.))
    """
    if argnames is not None:
        transform = functools.partial(grad_and_value, has_aux=has_aux)
        return by_names("grad_and_value", transform, func, argnums, argnames)
    compute = gradient_function("grad_and_value", func, argnums, has_aux, with_value=True)

    @functools.wraps(func)
    def gradient_and_value(*args: _Params.args, **kwargs: _Params.kwargs) -> tuple[Any, Any]:
        if not EAGER:
            return call_transform("grad_and_value", func, (argnums, has_aux), args, kwargs)
        gradients, value, aux = compute(args, kwargs)
        return (gradients, (value, aux)) if has_aux else (gradients, value)

    return gradient_and_value


def gradient_function(
    transform: str, func: Callable[..., Any], argnums: Argnums, has_aux: bool, with_value: bool
) -> Callable[[tuple[Any, ...], dict[str, Any]], tuple[Tree, Tensor | None, Any]]:
    """Of (gradient, value, aux); the value may be missing where it isn't asked for."""
    check = functools.partial(check_number, transform)

    def compute(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tree, Tensor | None, Any]:
        leaves, structure = flatten(selected(transform, argnums, args))
        check_differentiable(transform, "the argument at argnums", leaves)

        def body(frame: _C.ReverseFrame) -> tuple[Tree, Tensor, Any]:
            aliases = unflatten(structure, frame.differentiable(leaves))
            output, aux, keep = func(*replaced(argnums, args, aliases), **kwargs), None, False
            if has_aux:
                output, aux = split_aux(transform, func, output)
                aux, keep = release_aux(frame, aux)
            check(output)
            gradients = map(frame.strip, frame.pull_back([output], [None], keep))
            return unflatten(structure, list(gradients)), frame.release(output), aux

        return _C.run_reverse(body)

    if type(argnums) is int and abs(argnums) <= _MOST_ARGUMENTS and not has_aux:
        # All of it in one call to the engine, where the argument turns out to be made of tensors.
        return _C.differentiated_call(func, argnums, check, with_value, compute)
    return compute


def check_number(transform: str, output: Any) -> None:
    if not isinstance(output, Tensor):
        raise RuntimeError(
            f"functorch_ext.{transform}: Expected f(*args) to return a Tensor, got {type(output)}. "
            "Use has_aux=True to return more than the value to differentiate."
        )
    if output.dim() != 0:
        raise RuntimeError(
            f"functorch_ext.{transform}: Expected f(*args) to return a scalar Tensor, got tensor "
            f"with {output.dim()} dims, of shape {tuple(output.shape)}. Reduce it (for example "
            "with .sum()), or use vjp or jacrev."
        )


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Evaluates ``func`` and returns its pullback, the vector-Jacobian product.

    Args:
        func: Takes the primals, and returns a tensor or a container of tensors.
        primals: Floating-point or complex tensors, or containers of such.
        has_aux: ``func`` returns ``(output, aux)``; aux is passed on, not differentiated.

    Returns:
        ``(output, pullback)``, or ``(output, pullback, aux)``. The pullback takes a cotangent
        shaped as the output (or, for an output that is a tuple, its parts as separate arguments)
        and returns a tuple of cotangents, one per primal. It can be called any number of times.

    Raises:
        RuntimeError: a primal can't be differentiated by, the output holds something else than
            tensors, or a cotangent doesn't fit the output.

    Example::

        >>> output, pullback = functorch_ext.vjp(torch.sin, torch.zeros(3))
        >>> pullback(torch.ones(3))
        (tensor([1., 1., 1.]),)
    """
    leaves, structure = flatten(primals)
    check_differentiable("vjp", "primals", leaves)

    def body(frame: _C.ReverseFrame) -> Any:
        outputs, aux = func(*unflatten(structure, frame.differentiable(leaves))), None
        if has_aux:
            outputs, aux = split_aux("vjp", func, outputs)
            aux = map_tensors(frame.release, aux)
        output_leaves = check_outputs("vjp", outputs)
        output_structure = flatten(outputs)[1]
        released = unflatten(output_structure, [frame.release(leaf) for leaf in output_leaves])
        return frame, output_leaves, output_structure, released, aux

    frame, output_leaves, output_structure, released, aux = _C.run_reverse(body)

    def pullback(*cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None):
        given = cotangents[0] if len(cotangents) == 1 else cotangents
        seeds = _checked_cotangents(given, output_structure, output_leaves)
        return unflatten(structure, frame.pull_back(output_leaves, seeds, retain_graph))

    return (released, pullback, aux) if has_aux else (released, pullback)


def _checked_cotangents(given: Tree, structure: Any, outputs: list[Tensor]) -> list[Tensor]:
    leaves, given_structure = flatten(given)
    if given_structure != structure:
        raise RuntimeError(
            "functorch_ext.vjp: Expected pytree structure of cotangents to be the same as pytree "
            f"structure of outputs, {structure_of(structure)}, but got "
            f"{structure_of(given_structure)}."
        )
    for cotangent, output in zip(leaves, outputs, strict=True):
        if not isinstance(cotangent, Tensor):
            raise TypeError(
                "functorch_ext.vjp: a cotangent must be a tensor: gradients can be either Tensors "
                f"or None, but got {type(cotangent).__name__}."
            )
        if cotangent.shape != output.shape:
            raise RuntimeError(
                "functorch_ext.vjp: Mismatch in shape: a cotangent has the shape "
                f"{tuple(cotangent.shape)} and its output {tuple(output.shape)}."
            )
    return leaves
