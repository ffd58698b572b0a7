"""Which values the caller gets hold of: those may not become one with others."""

from typing import Any

import torch
from torch import fx


def returned(graph: fx.Graph) -> set[Any]:
    """The outputs, and what the outputs are views of."""
    found: set[Any] = set()
    pending: list[Any] = [n for node in graph.nodes if node.op == "output" for n in node.args[0]]
    while pending:
        node = pending.pop()
        if isinstance(node, fx.Node) and node not in found:
            found.add(node)
            if _may_alias(node):
                pending += node.all_input_nodes
    return found


def memory_of(node: Any) -> set[Any] | None:
    """The node and what it is a view of; None if that isn't made in the graph."""
    found = {node}
    while _may_alias(node):
        if node.op != "call_function" or len(node.all_input_nodes) != 1:
            return None
        (node,) = node.all_input_nodes
        found.add(node)
    return found


def _may_alias(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return True  # getitem, of several results
    return any(result.alias_info is not None for result in target._schema.returns)
