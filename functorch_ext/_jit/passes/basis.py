"""Products with a basis: the matrix of all unit vectors changes nothing.

The Jacobian of a first layer is ``eye @ weight``, and its cotangents start with the ones of a sum.
"""

from typing import Any

import torch
from torch import Tensor, fx

_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten._unsafe_view.default, _aten.clone.default)


def remove_products_with_basis(graph: fx.Graph) -> None:
    """Replaces the product of a unit matrix and another by that, in the product's layout."""
    for node in list(graph.nodes):
        if node.target is not _aten.mm.default:
            continue
        left, right = node.all_input_nodes[0], node.all_input_nodes[-1]  # may be the same
        if _is_unit_matrix(left):
            _replace(graph, node, right)
        elif _is_unit_matrix(right):
            _replace(graph, node, left)
        elif _is_column_of_ones(left):
            with graph.inserting_before(node):
                rows = graph.call_function(
                    _aten.expand.default, (right, list(node.meta["val"].shape))
                )
            rows.meta["val"] = right.meta["val"].expand(node.meta["val"].shape)
            _replace(graph, node, rows)


def _replace(graph: fx.Graph, product: fx.Node, other: fx.Node) -> None:
    with graph.inserting_before(product):
        copy = graph.call_function(
            _aten.clone.default, (other,), {"memory_format": torch.contiguous_format}
        )
    copy.meta.update(product.meta)
    product.replace_all_uses_with(copy)
    graph.erase_node(product)


def _value(node: Any) -> Any:
    """What the node computes, if its sizes are numbers."""
    value = node.meta.get("val")
    fixed = isinstance(value, Tensor) and all(type(size) is int for size in value.shape)
    return value if fixed else None


def _origin(node: Any, shape: tuple[int, ...]) -> Any:
    """What a matrix is a view of, if all that was changed are dimensions of one element."""
    while isinstance(node, fx.Node) and node.target in _VIEWS:
        value = _value(node.args[0])
        if not isinstance(value, Tensor) or [n for n in value.shape if n != 1] != [
            n for n in shape if n != 1
        ]:
            return None
        node = node.args[0]
    return node


def _is_unit_matrix(node: Any) -> bool:
    value = _value(node)
    if not isinstance(value, Tensor) or len({*value.shape}) != 1 or value.shape[0] == 1:
        return False
    origin = _origin(node, tuple(value.shape))
    if not isinstance(origin, fx.Node) or origin.target is not _aten.eye.default:
        return False
    return tuple(origin.meta["val"].shape) == tuple(value.shape)


def _is_column_of_ones(node: Any) -> bool:
    value = _value(node)
    if not isinstance(value, Tensor) or value.shape[1] != 1:
        return False
    while isinstance(node, fx.Node) and node.target in (
        *_VIEWS,
        _aten.expand.default,
        _aten.unsqueeze.default,
    ):
        node = node.args[0]
    return isinstance(node, fx.Node) and node.target is _aten.ones.default
