"""Cutting a graph with its backward pass in two.

The forward half computes the outputs; the backward half, what depends on a cotangent, and whatever
only that needs. What the second half uses of the first is saved in between.
"""

import operator
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import fx

from functorch_ext._jit.trace import Traced, output_of, placeholders_of, writes


@dataclass
class Halves:
    """``(*inputs) -> (*outputs, *made)`` and ``(*saved, *cotangents) -> (*gradients)``."""

    forward: fx.GraphModule
    backward: fx.GraphModule
    values: list[list[torch.Tensor]]  # of the two graphs' inputs, as fake tensors
    saved: list[int]  # where: positions among (*inputs, *outputs, *made)
    made: int  # how many


def partition(traced: Traced) -> Halves:
    """The two halves of a graph that holds a backward pass."""
    graph = traced.graph
    inputs = placeholders_of(graph)
    count = len(traced.differentiable)
    inputs, cotangents = inputs[:-count], inputs[-count:]
    results = list(output_of(graph).args[0])
    outputs, gradients = results[: traced.tensor_outputs], results[traced.tensor_outputs :]

    effects = [node for node in graph.graph.nodes if writes(node)]
    forward = _behind([*outputs, *effects])
    for node in graph.graph.nodes:
        if node.target is operator.getitem and node.args[0] in forward:
            forward.add(node)
    # Sizes can't be saved as tensors are, and views need not: they are computed again.
    kept_apart = {
        n for n in forward if isinstance(n.meta.get("val"), torch.Tensor) and not _is_view(n)
    }
    kept_apart |= {*inputs, *cotangents}
    second_half = _behind(gradients, kept_apart)
    order = [node for node in graph.graph.nodes if node in second_half - kept_apart]
    used = {argument for node in order for argument in node.all_input_nodes} | {*gradients}
    saved = [n for n in graph.graph.nodes if n in used & kept_apart and n not in cotangents]

    written = {node.args[0] for node in effects}
    first = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {node: first.node_copy(node) for node in inputs}
    before = {
        node: first.call_function(torch.ops.aten.clone.default, (copies[node],))
        for node in saved
        if node in written  # an input that is overwritten in the end
    }
    for node in graph.graph.nodes:
        if node in forward and node not in copies and node.op != "placeholder":
            copies[node] = first.node_copy(node, copies.__getitem__)
    given = [None if node in written else node for node in (*inputs, *outputs)]
    made = [node for node in saved if node not in given]
    places = [(given + made).index(node) for node in saved]
    kept = [before.get(node, copies.get(node)) for node in made]
    first.output([*(copies[node] for node in outputs), *kept])

    second = fx.Graph()
    copies = {}
    for number, node in enumerate(saved):
        copies[node] = second.placeholder(f"saved_{number}")
        copies[node].meta.update(node.meta)
    for node in cotangents:
        copies[node] = second.node_copy(node)
    for node in order:
        copies[node] = second.node_copy(node, copies.__getitem__)
    second.output([copies[node] for node in gradients])
    halves = (fx.GraphModule({}, first), fx.GraphModule({}, second))
    values = [[n.meta["val"] for n in placeholders_of(half)] for half in halves]
    return Halves(*halves, values, places, len(made))


def _is_view(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return _is_view(node.all_input_nodes[0])
    schema = getattr(node.target, "_schema", None)
    return (
        schema is not None
        and not schema.is_mutable
        and any(result.alias_info is not None for result in schema.returns)
    )


def _behind(nodes: list[fx.Node], until: Collection[fx.Node] = ()) -> set[fx.Node]:
    """The nodes and what they are computed from; nothing that is behind those of ``until``."""
    found: set[fx.Node] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending += () if node in until else node.all_input_nodes
    return found
