"""Forward mode: ``jvp`` and ``linearize``."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._arguments import (
    check_differentiable,
    check_outputs,
    outside_inference_mode,
    split_aux,
)
from functorch_ext._describing import kind_of, structure_of
from functorch_ext._pytree import Tree, flatten, map_tensors, unflatten


def jvp(
    func: Callable[..., Any],
    primals: Any,
    tangents: Any,
    *,
    strict: bool = False,
    has_aux: bool = False,
) -> Any:
    """The Jacobian-vector product: the derivative of ``func`` at ``primals`` along ``tangents``.

    Args:
        func: Takes the primals, and returns a tensor or a container of tensors.
        primals: A tuple of the arguments: floating-point or complex tensors, or containers of such.
        tangents: A tuple of the same structure, with tensors of the same shapes and dtypes.
        strict: Raise if an output doesn't depend on the primals, instead of a tangent of zeros.
        has_aux: ``func`` returns ``(output, aux)``; aux is passed on, not differentiated.

    Returns:
        ``(output, tangent)``, or ``(output, tangent, aux)``; the tangent is shaped as the output.

    Raises:
        RuntimeError: the tangents don't fit the primals, a primal can't be differentiated by, the
            output holds something else than tensors or, with ``strict``, doesn't depend on the
            primals.

    Example::

        >>> functorch_ext.jvp(torch.sin, (torch.zeros(2),), (torch.ones(2),))
        (tensor([0., 0.]), tensor([1., 1.]))
    """
    if torch.is_inference_mode_enabled():
        call = functools.partial(jvp, func, strict=strict, has_aux=has_aux)
        return outside_inference_mode(call, primals, tangents)

    def finish(frame: _C.ForwardFrame, outputs: Any) -> Any:
        aux = None
        if has_aux:
            outputs, aux = split_aux("jvp", func, outputs)
            aux = map_tensors(lambda tensor: frame.unpack(tensor)[0], aux)
        pairs = [frame.unpack(leaf) for leaf in check_outputs("jvp", outputs)]
        structure = flatten(outputs)[1]
        output = unflatten(structure, [primal for primal, _ in pairs])
        tangent = unflatten(structure, [_tangent_or_zeros(*pair, strict) for pair in pairs])
        return (output, tangent, aux) if has_aux else (output, tangent)

    if not has_aux:
        result = _C.call_forward(func, primals, tangents, strict, finish)
        if result is not NotImplemented:
            return result
    if not isinstance(primals, (tuple, list)):
        raise RuntimeError(
            "functorch_ext.jvp: Expected primals to be a tuple with one entry per argument, but "
            f"got {kind_of(primals)}. For one argument write (x,)."
        )
    leaves, structure = flatten(tuple(primals))
    check_differentiable("jvp", "primals", leaves)
    tangents = tuple(tangents) if isinstance(tangents, list) else tangents
    tangent_leaves = checked_tangents("jvp", flatten(tangents), leaves, structure)

    def body(frame: _C.ForwardFrame) -> Any:
        return finish(frame, func(*unflatten(structure, frame.make_dual(leaves, tangent_leaves))))

    return _C.run_forward(body, leaves)


def _tangent_or_zeros(primal: Tensor, tangent: Tensor | None, strict: bool) -> Tensor:
    if tangent is not None:
        return tangent
    if strict:
        raise RuntimeError(
            "functorch_ext.jvp: The output of f is independent of the inputs, which strict=True "
            "forbids. With strict=False its tangent is zeros."
        )
    return _C.run_with_grad_mode(False, torch.zeros_like, primal)


def checked_tangents(
    transform: str, tangents: tuple[list[Any], Any], primals: list[Tensor], structure: Any
) -> list[Tensor]:
    leaves, tangent_structure = tangents
    if tangent_structure != structure:
        raise RuntimeError(
            f"functorch_ext.{transform}: Expected primals and tangents to have the same python "
            f"structure, {structure_of(structure)}, but the tangents have "
            f"{structure_of(tangent_structure)}."
        )
    for i, (tangent, primal) in enumerate(zip(leaves, primals, strict=True)):
        if not isinstance(tangent, Tensor):
            raise RuntimeError(
                f"functorch_ext.{transform}: Expected tangents to only contain Tensors, got "
                f"{type(tangent)} as leaf {i}."
            )
        if tangent.shape != primal.shape or tangent.dtype != primal.dtype:
            raise RuntimeError(
                f"functorch_ext.{transform}: tangent {i} in flattened pytree doesn't match the "
                f"shape and dtype of its primal: expected {tuple(primal.shape)} and "
                f"{primal.dtype}, but got {tuple(tangent.shape)} and {tangent.dtype}."
            )
    return leaves


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """Evaluates ``func`` at the primals and returns the linear map that approximates it there.

    Args:
        func: Takes the primals, and returns a tensor or a container of tensors.
        primals: Floating-point or complex tensors, or containers of such.

    Returns:
        ``(output, push_forward)``. ``push_forward(*tangents)`` takes tangents shaped as the primals
        and returns the derivative along them, shaped as the output, without evaluating ``func``
        again.

    Raises:
        RuntimeError: a primal can't be differentiated by, or tangents don't fit the primals.

    Example::

        >>> output, push_forward = functorch_ext.linearize(torch.sin, torch.zeros(2))
        >>> push_forward(torch.ones(2))
        tensor([1., 1.])

    Source: the derivative is linear in the tangents, so it is the transpose of the pullback, which
    is linear in the cotangents: differentiating the pullback by its cotangent gives it back
    (J. Townsend, "A new trick for calculating Jacobian vector products", 2017).
    """
    leaves, structure = flatten(primals)
    check_differentiable("linearize", "primals", leaves)
    linear = LinearMap("linearize", lambda args: func(*args), leaves, structure)

    def push_forward(*tangents: Any) -> Tree:
        given = checked_tangents("linearize", flatten(tangents), leaves, structure)
        return linear(given)

    return linear.output, push_forward


class LinearMap:
    """A recorded pullback and its transpose."""

    def __init__(
        self,
        transform: str,
        func: Callable[[Tree], Any],
        primals: list[Tensor],
        structure: Any,
    ) -> None:
        def record(frame: _C.ReverseFrame) -> None:
            self.primal_frame = frame
            outputs = func(unflatten(structure, frame.differentiable(primals)))
            self.leaves = check_outputs(transform, outputs)
            self.structure = flatten(outputs)[1]
            self.released = [frame.release(leaf) for leaf in self.leaves]
            self.output = unflatten(self.structure, self.released)
            _C.run_reverse(record_pullback)

        def record_pullback(frame: _C.ReverseFrame) -> None:
            # The pullback as a function of its cotangents.
            self.cotangent_frame = frame
            cotangents = frame.differentiable([torch.zeros_like(leaf) for leaf in self.released])
            self.pulled_back = self.primal_frame.pull_back(self.leaves, cotangents, True)

        _C.run_reverse(record)

    def __call__(self, tangents: list[Tensor]) -> Tree:
        pushed = self.cotangent_frame.pull_back(self.pulled_back, tangents, True)
        return unflatten(self.structure, pushed)

    def transposed(self, cotangents: list[Tensor]) -> list[Tensor]:
        """The pullback: cotangents of the primals from cotangents of the output's leaves."""
        return self.primal_frame.pull_back(self.leaves, cotangents, True)
