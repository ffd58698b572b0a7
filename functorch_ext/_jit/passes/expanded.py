"""Expanded tensors that an operator adds into: Inductor would write to memory that rows share."""

import torch
from torch import fx

_aten = torch.ops.aten
_ADDS_INTO = (
    _aten.index_put,
    _aten._unsafe_index_put,
    _aten.index_add,
    _aten.index_copy,
    _aten.index_fill,
    _aten.scatter,
    _aten.scatter_add,
    _aten.scatter_reduce,
    _aten.index_reduce,
    _aten.select_scatter,
    _aten.slice_scatter,
    _aten.diagonal_scatter,
    _aten.as_strided_scatter,
    _aten.masked_scatter,
)


def clone_expanded(graph: fx.Graph) -> None:
    """Gives the first argument of such operators memory of its own."""
    for node in list(graph.nodes):
        packet = getattr(node.target, "overloadpacket", None)
        if packet not in _ADDS_INTO:
            continue
        value = node.args[0].meta.get("val")
        if value is None or 0 in value.stride():
            with graph.inserting_before(node):
                clone = graph.call_function(
                    _aten.clone.default,
                    (node.args[0],),
                    {"memory_format": torch.contiguous_format},
                )
            clone.meta.update(node.args[0].meta)
            node.update_arg(0, clone)
