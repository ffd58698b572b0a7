"""What an operator of a graph costs, by rules of thumb."""

from typing import Any

import torch
from torch import Tensor, fx


def flops_of(node: fx.Node) -> int:
    """Products of matrices by PyTorch's formulas; else one for each number read or written."""
    from torch.utils.flop_counter import flop_registry

    if not _computes(node):
        return 0
    results, arguments = _tensors(node.meta.get("val")), _arguments(node)
    packet: Any = getattr(node.target, "overloadpacket", None)
    if packet in flop_registry:
        values = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
        args, kwargs = values
        return int(flop_registry[packet](*args, **kwargs, out_val=node.meta["val"]))
    if not any(each.is_floating_point() or each.is_complex() for each in results):
        return 0
    return max((_numel(each) for each in (*results, *arguments)), default=0)


def bytes_of(node: fx.Node) -> int:
    """The size of the arguments and of the results."""
    if not _computes(node):
        return 0
    tensors = (*_tensors(node.meta.get("val")), *_arguments(node))
    return sum(_numel(each) * each.element_size() for each in tensors)


def _computes(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and not target.is_view


def _arguments(node: fx.Node) -> list[Tensor]:
    return [each for n in node.all_input_nodes for each in _tensors(n.meta.get("val"))]


def _tensors(value: Any) -> list[Tensor]:
    return [each for each in torch.utils._pytree.tree_leaves(value) if isinstance(each, Tensor)]


def _numel(tensor: Tensor) -> int:
    return int(tensor.numel())  # a symbolic size by the value that it was traced with
