"""What the differentiating transforms share: argnums, and checks of their inputs and outputs."""

from collections.abc import Callable
from typing import Any, TypeGuard, cast

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
    if not isinstance(argnums, tuple) or not argnums:
        raise RuntimeError(
            f"functorch_ext.{transform}: argnums must be an int or a non-empty tuple of ints, but "
            f"got {argnums!r}."
        )
    positions = [_checked(transform, position, argnums, args) for position in argnums]
    if len(set(positions)) != len(positions):
        raise RuntimeError(
            f"functorch_ext.{transform}: argnums names an argument twice: {argnums!r}."
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
            f"functorch_ext.{transform}: argnums must hold ints, but got {position!r}."
        )
    if not -len(args) <= position < len(args):
        raise RuntimeError(
            f"functorch_ext.{transform}: argnums={argnums!r} is out of range for a call with "
            f"{len(args)} positional arguments. Keyword arguments can't be differentiated."
        )
    return position % len(args)


def check_differentiable(transform: str, what: str, leaves: list[Any]) -> None:
    """Raises unless every leaf is a floating-point or complex tensor."""
    if not leaves:
        raise RuntimeError(
            f"functorch_ext.{transform}: {what} holds no tensor to differentiate by."
        )
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise RuntimeError(
                f"functorch_ext.{transform}: {what} must be a tensor or a container of tensors, "
                f"but holds {kind_of(leaf)}. Name the tensor arguments with argnums, or "
                "close over the others."
            )
        if not (leaf.is_floating_point() or leaf.is_complex()):
            raise RuntimeError(
                f"functorch_ext.{transform}: {what} must have a floating-point or complex dtype, "
                f"but got {leaf.dtype}. Convert it first, for example with .double()."
            )


def check_outputs(transform: str, outputs: Tree) -> list[Tensor]:
    """The leaves of a function's output, each checked to be a tensor."""
    leaves = leaves_of(outputs)
    if not leaves:
        raise RuntimeError(
            f"functorch_ext.{transform}: the function must return a tensor or a container of "
            "tensors, but it returned none."
        )
    for index, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor):
            raise RuntimeError(
                f"functorch_ext.{transform}: the function must return tensors only, but it "
                f"returned {returned_leaf(outputs, index)}. Return other values as aux "
                "(has_aux=True)."
            )
    return leaves


def split_aux(transform: str, func: Callable[..., Any], result: Any) -> tuple[Any, Any]:
    """The output and aux of a function called with ``has_aux=True``."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise RuntimeError(
            f"functorch_ext.{transform}: with has_aux=True the function must return a tuple "
            f"(output, aux), but it returned {kind_of(result)}"
            + (f" of length {len(result)}." if isinstance(result, tuple) else ".")
        )
    return result


def outside_inference_mode(call: Callable[..., Any], *args: Any) -> Any:
    """The result of a call outside of inference mode, whose tensors autograd can't save."""

    def body() -> Any:
        return call(*map_tensors(lambda x: x.clone() if x.is_inference() else x, args))

    return _C.run_outside_inference_mode(body)
