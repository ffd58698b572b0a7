"""Common subexpressions: what is computed twice from the same is computed once."""

from typing import Any

import torch
from torch import fx

from functorch_ext._jit.passes.memory import returned


def merge_common(graph: fx.Graph) -> None:
    """Merges calls of the same operator with the same arguments."""
    seen: dict[Any, fx.Node] = {}
    kept = returned(graph)
    for node in list(graph.nodes):
        if node in kept or not _is_pure(node):
            continue
        key = (node.target, _hashable(node.args), _hashable(node.kwargs))
        try:
            earlier = seen.setdefault(key, node)
        except TypeError:  # an argument that can't be compared
            continue
        if earlier is not node:
            node.replace_all_uses_with(earlier)
            graph.erase_node(node)


def _is_pure(node: fx.Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    tags = node.target.tags
    return not node.target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in tags


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *(_hashable(each) for each in value))
    if isinstance(value, dict):
        return tuple((name, _hashable(each)) for name, each in sorted(value.items()))
    if isinstance(value, (bool, int, float, complex)):
        return (type(value).__name__, repr(value))  # 1, 1.0 and True differ, and so do 0.0 and -0.0
    return value
