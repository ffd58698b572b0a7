"""Aliases: a graph of values has no use for two names of one."""

from typing import Any

import torch
from torch import fx

_aten = torch.ops.aten
_ALIASES = (_aten.alias.default, _aten.detach.default, _aten.lift_fresh.default)


def remove_aliases(graph: fx.Graph) -> None:
    """Replaces each alias by its argument, and reshapes to the same shape."""
    for node in list(graph.nodes):
        if any(user.op == "output" for user in node.users):
            continue  # the caller gets another tensor than the argument
        if node.op == "call_function" and (node.target in _ALIASES or _keeps_shape(node)):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _keeps_shape(node: Any) -> bool:
    if node.target is not _aten.view.default:
        return False
    size = list(node.args[1])
    value = node.args[0].meta.get("val")
    return value is not None and all(isinstance(n, int) for n in size) and size == [*value.shape]
