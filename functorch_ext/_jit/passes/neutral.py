"""Arithmetic that changes nothing: first powers, products with the number one, sums with zeros, and
sums of one number each."""

from typing import Any

import torch
from torch import Tensor, fx

from functorch_ext._jit.passes.memory import memory_of, returned

_aten = torch.ops.aten
_EXPANDS = (_aten.expand.default, _aten.view.default, _aten.unsqueeze.default)


def remove_neutral(graph: fx.Graph) -> None:
    """Replaces such a node by its argument, if that has the same layout."""
    kept = returned(graph)
    for node in list(graph.nodes):
        argument = _changed_by_nothing(node)
        if argument is None or not _is_same(argument, node):
            continue
        if node in kept:
            memory = memory_of(argument)
            if memory is None or not kept.isdisjoint(memory):
                continue
            kept |= memory
        node.replace_all_uses_with(argument)
        graph.erase_node(node)


def _changed_by_nothing(node: fx.Node) -> Any:
    if node.target in (_aten.pow.Tensor_Scalar, _aten.mul.Scalar) and node.args[1] == 1:
        return node.args[0]
    if node.target is _aten.mul.Tensor and node.args[1] == 1:
        return node.args[0]
    if node.target is _aten.add.Tensor and not node.kwargs:
        first, second = node.args
        if _is_zeros(first):
            return second
        return first if _is_zeros(second) else None
    if node.target is _aten.sum.dim_IntList and not node.kwargs:
        summed: Any = node.args[0]
        dims: Any = node.args[1]
        if dims and all(_is_one(summed.meta["val"].shape[dim]) for dim in dims):
            return summed
    return None


def _is_one(size: Any) -> bool:
    return type(size) is int and size == 1


def _is_zeros(node: Any) -> bool:
    while isinstance(node, fx.Node) and node.target in _EXPANDS:
        node = node.args[0]
    return isinstance(node, fx.Node) and node.target is _aten.zeros.default


def _is_same(argument: Any, node: fx.Node) -> bool:
    given = argument.meta.get("val") if isinstance(argument, fx.Node) else None
    result = node.meta.get("val")
    return (
        isinstance(given, Tensor)
        and isinstance(result, Tensor)
        and (given.dtype, given.shape, given.stride())
        == (result.dtype, result.shape, result.stride())
    )
