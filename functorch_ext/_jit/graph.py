"""The backend without a compiler: the optimized graph as Python code."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx


def compile_graph(
    graph: fx.GraphModule, values: list[Tensor], written: list[int]
) -> Callable[[list[Tensor]], Any]:
    """The graph as a function of a list of tensors."""
    forward = graph.forward
    return lambda tensors: forward(*tensors)
