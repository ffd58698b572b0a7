"""Products with ones: a gradient starts with them."""

import torch
from torch import fx

from functorch_ext._jit.passes.memory import returned

_aten = torch.ops.aten


def remove_products_with_ones(graph: fx.Graph) -> None:
    """Replaces a product with ones by the other factor, if that has the product's layout."""
    kept = returned(graph)
    for node in list(graph.nodes):
        if node.target is not _aten.mul.Tensor or node in kept:
            continue
        for factor, ones in (node.args, reversed(node.args)):
            if isinstance(factor, fx.Node) and _is_ones(ones) and _same(factor, node):
                node.replace_all_uses_with(factor)
                graph.erase_node(node)
                break


def _is_ones(node: object) -> bool:
    while isinstance(node, fx.Node) and node.target in (_aten.expand.default, _aten.view.default):
        node = node.args[0]
    return isinstance(node, fx.Node) and node.target is _aten.ones.default


def _same(factor: fx.Node, product: fx.Node) -> bool:
    given, result = factor.meta.get("val"), product.meta.get("val")
    return (
        isinstance(given, torch.Tensor)
        and isinstance(result, torch.Tensor)
        and given.dtype == result.dtype
        and given.shape == result.shape
        and given.stride() == result.stride()
    )
