"""Copies and views of views: a graph of values needs neither."""

from typing import Any

import torch
from torch import Tensor, fx

from functorch_ext._jit.passes.memory import returned

_aten = torch.ops.aten
_RESHAPES = (_aten.view.default, _aten._unsafe_view.default)


def remove_copies(graph: fx.Graph) -> None:
    """Replaces each copy that has the layout of the original by that."""
    kept = returned(graph)
    for node in list(graph.nodes):
        if node.target is _aten.clone.default and node not in kept:
            original = node.args[0]
            if _layout(original) is not None and _layout(original) == _layout(node):
                node.replace_all_uses_with(original)
                graph.erase_node(node)


def merge_views(graph: fx.Graph) -> None:
    """Replaces a view of a view by one of the original, and a matrix transposed twice by itself."""
    kept = returned(graph)
    for node in list(graph.nodes):
        inner = node.args[0] if node.op == "call_function" and node.args else None
        if not isinstance(inner, fx.Node):
            continue
        if node.target is _aten.t.default and inner.target is _aten.t.default:
            if node not in kept:
                node.replace_all_uses_with(inner.args[0])
                graph.erase_node(node)
        elif node.target in _RESHAPES and inner.target in _RESHAPES:
            original = inner.args[0]
            if node not in kept and _layout(original) == _layout(node):
                node.replace_all_uses_with(original)
                graph.erase_node(node)
            elif _is_contiguous(original):
                node.update_arg(0, original)


def _layout(node: Any) -> Any:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    if not isinstance(value, Tensor):
        return None
    return value.dtype, tuple(value.shape), value.stride()


def _is_contiguous(node: Any) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_contiguous()
