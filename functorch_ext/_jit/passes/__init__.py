"""What becomes of a graph before it is compiled; each pass is a function of the graph."""

from torch import fx

import functorch_ext._releases.dead_code  # noqa: F401
from functorch_ext._jit.passes.aliases import remove_aliases
from functorch_ext._jit.passes.basis import remove_products_with_basis
from functorch_ext._jit.passes.common import merge_common
from functorch_ext._jit.passes.copies import merge_views, remove_copies
from functorch_ext._jit.passes.factorizations import share_factorizations
from functorch_ext._jit.passes.neutral import remove_neutral
from functorch_ext._jit.passes.ones import remove_products_with_ones
from functorch_ext._jit.without_dynamo import without_dynamo


def optimize(graph: fx.GraphModule) -> fx.GraphModule:
    """All passes, in order; the graph must not write to anything but its inputs, in the end."""
    with without_dynamo():  # passes call operators on fake tensors
        for change in (
            remove_aliases,
            remove_products_with_ones,
            remove_neutral,
            remove_products_with_basis,
            remove_copies,
            merge_views,
            merge_common,
            share_factorizations,
        ):
            change(graph.graph)
            graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    return graph
