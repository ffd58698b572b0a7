"""A custom ``torch.autograd.Function`` in the graph of a transformed function.

Dynamo traces its forward and its backward into graphs, and PyTorch's node for the two can be
differentiated once: it hands values from one to the other past autograd. This one saves them as the
program did, so that derivatives of all orders and modes are right.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.fx import GraphModule, Node


def outside_no_grad(module: GraphModule) -> bool:
    """Removes the ``no_grad`` that Dynamo traces a backward in; False if there is another inside.

    The engine decides whether a backward pass is recorded. What Dynamo has written down restores
    grad mode to what it was when it traced.
    """
    steps = [node for node in module.graph.nodes if node.op not in ("placeholder", "output")]
    modes = [node for node in steps if node.target is torch._C._set_grad_enabled]
    if not modes:
        return True
    if modes != [steps[0], steps[-1]]:
        return False
    for node in modes:
        module.graph.erase_node(node)
    module.recompile()
    return True


def custom_function(
    forward_graph: GraphModule,
    backward_graph: GraphModule,
    *args: Any,
    non_differentiable_idx: Any = (),
    saved_for_backward_idx: Any = (),
) -> Any:
    """Applies the function: the node that stands for it in a graph."""
    inputs = list(forward_graph.graph.find_nodes(op="placeholder"))
    (returned,) = forward_graph.graph.find_nodes(op="output")
    outputs, saved = returned.args[0]
    is_single = isinstance(outputs, Node)
    results = [outputs] if is_single else list(outputs)
    count = len(results)
    # Neither an input nor an output, but computed on the way: autograd takes it for a constant.
    others = [n for n in dict.fromkeys(saved) if n not in inputs and n not in results]
    constants: dict[Node, Any] = {}

    class Traced(Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*args: Any) -> tuple[Any, ...]:
            outputs, values = forward_graph(*args)
            by_node = dict(zip(saved, values, strict=True))
            constants.update({n: by_node[n] for n in others if not isinstance(by_node[n], Tensor)})
            outputs = (outputs,) if is_single else tuple(outputs)
            return *outputs, *(by_node[node] for node in others if node not in constants)

        @staticmethod
        def setup_context(ctx: Any, inputs_given: tuple[Any, ...], output: tuple[Any, ...]) -> None:
            ctx.mark_non_differentiable(
                *(output[i] for i in non_differentiable_idx), *output[count:]
            )
            rest = dict(zip([n for n in others if n not in constants], output[count:]))
            tensors = []
            for node in saved:
                if node in constants:
                    continue
                if node in inputs:
                    value = inputs_given[inputs.index(node)]
                elif node in results:
                    value = output[results.index(node)]
                else:
                    value = rest[node]
                if isinstance(value, Tensor):
                    tensors.append(value)
                else:
                    constants[node] = value
            ctx.save_for_backward(*tensors)

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            tensors: Iterator[Tensor] = iter(ctx.saved_tensors)
            values = [constants[n] if n in constants else next(tensors) for n in saved]
            return backward_graph(*cotangents[:count], *values)

    given = Traced.apply(*args)
    return given[0] if is_single else tuple(given[:count])
