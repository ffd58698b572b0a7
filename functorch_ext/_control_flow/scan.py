"""``scan``, ``associative_scan`` and ``map`` of ``torch._higher_order_ops``: one step at a time."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.associative_scan import generic_associative_scan
from torch._higher_order_ops.associative_scan import wrap_combine_fn_flat as flat_operator
from torch._higher_order_ops.scan import wrap_combine_fn_flat as flat_step
from torch.utils import _pytree as pytree

from functorch_ext._control_flow.outputs import check_same


def scan(
    combine_fn: Callable[..., Any],
    init: Sequence[Tensor],
    xs: Sequence[Tensor],
    additional_inputs: Sequence[Any],
) -> Any:
    """The last carry, and the stacked outputs of the steps.

    The program's own function returns ``(carry, output)``, and so does this; a graph of it returns
    leaves.
    """
    of_program = isinstance(combine_fn, functools.partial) and combine_fn.func is flat_step
    carry: Any = list(init)
    returned: Any = None
    outputs = []
    for slices in _slices(xs):
        returned = combine_fn(*carry, *slices, *additional_inputs)
        if of_program and not (isinstance(returned, list | tuple) and len(returned) == 2):
            raise RuntimeError(
                "scan: Expect combine_fn to return a tuple (next_carry, y), but it returned "
                f"{type(returned).__name__}."
            )
        leaves = pytree.tree_leaves(returned[0] if of_program else returned)
        count = len(leaves) if of_program else len(init)
        check_same("scan", leaves[:count], list(init), ("carry", "init"))
        carry = leaves[:count]
        outputs.append(returned[1] if of_program else leaves[count:])
    stacked = _stacked(outputs)
    if not of_program:
        return (*carry, *stacked)
    return returned[0], stacked


def associative_scan(
    combine_fn: Callable[..., Any], xs: Sequence[Tensor], additional_inputs: Sequence[Any]
) -> Any:
    """All combinations from the start: in parallel, since the function is pointwise."""
    leaves = generic_associative_scan(combine_fn, xs, 0, tuple(additional_inputs))
    if isinstance(combine_fn, functools.partial) and combine_fn.func is flat_operator:
        return pytree.tree_unflatten(leaves, combine_fn.keywords["spec"])
    return leaves


def map_over_slices(
    function: Callable[..., Any],
    xs: Sequence[Tensor],
    arguments: Sequence[Any],
    mutated_arg_indices: str = "",
) -> Any:
    """The stacked results of the function, slice by slice.

    Which arguments a graph writes into, as some releases say, needn't be known here.
    """
    return _stacked([function(*slices, *arguments) for slices in _slices(xs)])


def _slices(xs: Sequence[Tensor]) -> Iterable[tuple[Tensor, ...]]:
    return zip(*(x.unbind(0) for x in xs), strict=True)


def _stacked(each: list[Any]) -> Any:
    """A tree of stacks, from trees of equal structure."""
    for other in each[1:]:
        check_same("torch._higher_order_ops", other, each[0], ("the output of a step", "the first"))
    columns = zip(*(pytree.tree_leaves(tree) for tree in each), strict=True)
    stacks = [torch.stack(c) if isinstance(c[0], Tensor) else c[0] for c in columns]
    return pytree.tree_unflatten(stacks, pytree.tree_structure(each[0]))
