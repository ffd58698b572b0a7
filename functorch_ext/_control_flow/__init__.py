"""PyTorch's control flow inside transforms: ``cond``, ``while_loop``, ``scan``, ``map``, attention.

These are operators whose arguments are functions. Called in eager mode they run through Dynamo,
which takes each function apart into a graph; the graph has derivatives of its own, in reverse mode
and once. Inside a transform that is neither needed nor wanted: the functions are called as they
are, and what they compute is differentiated and batched as everywhere.

The operators get kernels on the keys that are on while a transform runs and on its tensors.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._higher_order_ops import utils
from torch._higher_order_ops.associative_scan import associative_scan_op
from torch._higher_order_ops.cond import cond_op
from torch._higher_order_ops.flex_attention import flex_attention as flex_attention_op
from torch._higher_order_ops.map import map_impl
from torch._higher_order_ops.scan import scan_op
from torch._higher_order_ops.while_loop import while_loop_op
from torch._ops import HigherOrderOperator
from torch.utils import _pytree as pytree

from functorch_ext import _C, _patches
from functorch_ext._control_flow.attention import flex_attention
from functorch_ext._control_flow.branch import are_called, kernels
from functorch_ext._control_flow.cond import cond
from functorch_ext._control_flow.scan import associative_scan, map_over_slices, scan
from functorch_ext._control_flow.while_loop import while_loop
from functorch_ext._patches.after_import import when_imported
from functorch_ext._releases.control_flow import COMPILE_AND_CALL

# On while a transform runs, on its tensors, and on while functionalize runs.
_KEYS = ("TESTING_ONLY_GenericMode", "DeferredInit", "TESTING_ONLY_GenericWrapper")


def install() -> None:
    """Gives the operators kernels, and calls them without a compiler inside transforms."""
    for op, kernel in (
        (cond_op, cond),
        (while_loop_op, while_loop),
        (scan_op, scan),
        (associative_scan_op, associative_scan),
        (map_impl, map_over_slices),
        (flex_attention_op, flex_attention),
    ):
        _register(op, kernel)
    if COMPILE_AND_CALL is not None:
        _call_without_compiler(COMPILE_AND_CALL)
    when_imported("torch.nn.attention.flex_attention", _let_differentiate)


def _call_without_compiler(name: str) -> None:
    """Inside transforms the operators' functions are called as they are."""
    plain = getattr(utils, name)

    def call(function: Callable[..., Any], args: Any, kwargs: Any = None) -> Any:
        # Tensors of a transform may be in use by another thread: this one's are compiled then.
        if not are_called():
            return plain(function, args, kwargs)
        if function.__qualname__.startswith("cond."):
            args = _with_flat_operands(*args)
        return function(*args, **(kwargs or {}))

    _patches.replace(
        utils,
        name,
        call,
        "torch.cond and its kind would compile functions that a transform or jit calls",
        "a look at the modes that are on",
    )


def _let_differentiate(module: Any) -> None:
    """Attention that is computed from its parts has derivatives on every device."""
    plain = module._validate_device

    def validate(*tensors: Any) -> None:
        if not _C.transform_runs():
            plain(*tensors)

    _patches.replace(module, "_validate_device", validate, "flex_attention refuses tensors on CPU")


def _with_flat_operands(
    pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Any
) -> tuple[Any, ...]:
    """The arguments of a ``cond`` with tensors as operands, as Dynamo would make them."""
    leaves, structure = pytree.tree_flatten(operands)

    def of_leaves(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *leaves: function(*pytree.tree_unflatten(leaves, structure))

    return pred, of_leaves(true_fn), of_leaves(false_fn), tuple(leaves)


def _register(op: HigherOrderOperator, kernel: Callable[..., Any]) -> None:
    kernels[op] = kernel
    for name in _KEYS:
        op.py_impl(torch._C._dispatch_key_parse(name))(kernel)
