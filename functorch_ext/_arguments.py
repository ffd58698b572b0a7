"""What the differentiating transforms share: argnums, and checks of their inputs and outputs."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._describing import kind_of, returned_leaf
from functorch_ext._pytree import Tree, leaves_of, map_tensors

Argnums = int | tuple[int, ...]


def is_int(value: Any) -> TypeGuard[int]:
    """An int, or one of an IntEnum; not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def selected(transform: str, argnums: Argnums, args: tuple[Any, ...]) -> Any:
    """The argument that an int ``argnums`` names, or the tuple of those that a tuple names."""
    if is_int(argnums):
        return args[_checked(transform, argnums, argnums, args)]
    if not isinstance(argnums, tuple):
        raise RuntimeError(
            f"functorch_ext.{transform}: argnums must be int or Tuple[int, ...], got: "
            f"{type(argnums)}."
        )
    if not argnums:
        raise RuntimeError(
            f"functorch_ext.{transform}: argnums must be non-empty: name an argument to "
            "differentiate by."
        )
    positions = [_checked(transform, position, argnums, args) for position in argnums]
    if len(set(positions)) != len(positions):
        raise RuntimeError(
            f"functorch_ext.{transform}: argnums elements must be unique, but {argnums!r} names an "
            "argument twice."
        )
    return tuple(args[position] for position in positions)


def replaced(argnums: Argnums, args: tuple[Any, ...], values: Any) -> list[Any]:
    """The arguments with the selected ones replaced by ``values``, which ``selected`` shaped."""
    arguments = list(args)
    if is_int(argnums):
        arguments[argnums] = values
    else:
        for position, value in zip(cast(tuple[int, ...], argnums), values, strict=True):
            arguments[position] = value
    return arguments


def _checked(transform: str, position: Any, argnums: Argnums, args: tuple[Any, ...]) -> int:
    if not is_int(position):
        raise RuntimeError(
            f"functorch_ext.{transform}: argnum must be int, got: {type(position)} in "
            f"argnums={argnums!r}."
        )
    if not -len(args) <= position < len(args):
        raise RuntimeError(
            f"functorch_ext.{transform}: Got argnum={position!r}, but only {len(args)} positional "
            f"inputs (argnums={argnums!r}). Keyword arguments can't be differentiated."
        )
    return position % len(args)


# Forward and reverse mode raise other types of error for the same, as in PyTorch.
_FORWARD = ("jvp", "jacfwd", "hessian", "linearize")
_WITHOUT_AUX = ("divergence", "jet", "laplacian")


def _instead_of(leaf: Any) -> str:
    """What to differentiate by instead of something that is no tensor."""
    if isinstance(leaf, torch.nn.Module):
        return (
            "Differentiate by dict(module.named_parameters()), in a function that calls the module "
            "as functional_call(module, parameters, args)."
        )
    if isinstance(leaf, Iterator):
        return (
            "An iterator isn't looked into: for parameters write dict(module.named_parameters())."
        )
    return "Name the tensor arguments with argnums, or close over the others."


def check_differentiable(transform: str, what: str, leaves: list[Any]) -> None:
    """Raises unless every leaf is a floating-point or complex tensor."""
    if torch._C._is_tracing() and transform not in ("grad", "grad_and_value"):
        _C.refuse_torchscript()
    if not leaves:
        raise RuntimeError(
            f"functorch_ext.{transform}: Expected {what} to contain at least one Tensor to "
            "differentiate by."
        )
    forward = transform in _FORWARD
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            told = (
                f"Expected {what} to only contain Tensors,"
                if forward
                else f"Thing passed to transform API must be Tensor, in {what},"
            )
            raise (RuntimeError if forward else ValueError)(
                f"functorch_ext.{transform}: {told} got {type(leaf)}. {_instead_of(leaf)}"
            )
        if not (leaf.is_floating_point() or leaf.is_complex()):
            told = (
                f"Expected {what} to be floating point or complex"
                if forward
                else f"only Tensors of floating point dtype can require gradients, in {what}"
            )
            raise (ValueError if forward else RuntimeError)(
                f"functorch_ext.{transform}: {told}, but got {leaf.dtype}. Convert it first, for "
                "example with .double()."
            )


def check_outputs(transform: str, outputs: Tree) -> list[Tensor]:
    """The leaves of a function's output, each checked to be a tensor; in reverse mode, one that
    can be differentiated."""
    leaves = leaves_of(outputs)
    if not leaves or outputs is None:
        raise RuntimeError(
            f"functorch_ext.{transform}: Expected f to be a function that has non-empty output, "
            f"but it returned {outputs!r}."
        )
    for index, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor):
            raise RuntimeError(
                f"functorch_ext.{transform}: expected f(*primals) to return only tensors, got "
                f"unsupported type {type(leaf)}: {returned_leaf(outputs, index)}."
                + _advice(transform, "other values")
            )
        is_strided = leaf.layout is torch.strided and not leaf.is_nested
        if not is_strided and transform in ("jacrev", "jacfwd"):
            raise RuntimeError(
                f"functorch_ext.{transform}: expected f to return strided tensors, got one of "
                f"layout {leaf.layout}, which holds no rows of a Jacobian. Return a dense one."
            )
        if transform not in _FORWARD and not (leaf.is_floating_point() or leaf.is_complex()):
            raise RuntimeError(
                f"functorch_ext.{transform}: All outputs of f must be floating-point or complex "
                f"Tensors, got Tensor with dtype {leaf.dtype}." + _advice(transform, "others")
            )
    return leaves


def _advice(transform: str, what: str) -> str:
    return "" if transform in _WITHOUT_AUX else f" Return {what} as aux (has_aux=True)."


def split_aux(transform: str, func: Callable[..., Any], result: Any) -> tuple[Any, Any]:
    """The output and aux of a function called with ``has_aux=True``."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise RuntimeError(
            f"functorch_ext.{transform}: output of function f should be a tuple: (output, aux) if "
            f"has_aux is True, but it is {kind_of(result)}"
            + (f" of length {len(result)}." if isinstance(result, tuple) else ".")
        )
    return result


def release_aux(frame: _C.ReverseFrame, aux: Any) -> tuple[Any, bool]:
    """``aux`` as the caller gets it, and whether it needs the graph after the backward pass."""
    needs_graph = False

    def release(tensor: Tensor) -> Tensor:
        nonlocal needs_graph
        released = frame.release(tensor)
        needs_graph = needs_graph or released.requires_grad
        return released

    return map_tensors(release, aux), needs_graph


def keeping_output(transform: str, func: Callable[..., Any], has_aux: bool) -> Callable[..., Any]:
    """The function with all that it returns, its own aux included, once more as aux."""

    @functools.wraps(func)
    def kept(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        result = func(*args, **kwargs)
        return (split_aux(transform, func, result)[0] if has_aux else result), result

    return kept


def outside_inference_mode(call: Callable[..., Any], *args: Any) -> Any:
    """The result of a call outside of inference mode, whose tensors autograd can't save."""

    def body() -> Any:
        return call(*map_tensors(lambda x: x.clone() if x.is_inference() else x, args))

    return _C.run_outside_inference_mode(body)
