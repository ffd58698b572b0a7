"""From a function and the arguments of a call to a graph of plain operators.

All tensors that the graph reads are inputs of it: the arguments, and what the function closes over
(the parameters and buffers of modules, mostly). Where autograd follows the call, the graph holds
the backward pass too: PyTorch's own autograd runs while the function is traced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from functorch_ext._control_flow.branch import Called
from functorch_ext._jit.call import Call
from functorch_ext._jit.closed_over import ClosedOver, move_inputs_to_front
from functorch_ext._jit.errors import is_value_read, not_kept, value_read, written_to
from functorch_ext._jit.record import record
from functorch_ext._jit.signature import Arguments
from functorch_ext._jit.watched import ModulesThatRun, Place, places_of
from functorch_ext._pytree import flatten
from functorch_ext.functionalize import functionalize


@dataclass
class Traced:
    """A graph ``(*arguments, *closed_over, *cotangents) -> (*outputs, *gradients)``."""

    graph: fx.GraphModule
    closed_over: list[Tensor]
    watched: list[Place]
    outputs: list[Any]  # the leaves of the function's result; None for each tensor
    structure: Any
    differentiable: list[int]  # which of the output tensors have a cotangent
    by: list[int]  # which of the inputs have a gradient
    tensor_outputs: int
    call: Call


def trace(
    func: Callable[..., Any], arguments: Arguments, has_kwargs: bool, dynamic: bool
) -> Traced:
    """Calls the function once, on tensors without values."""
    recorder = _Recorder(Call(func, arguments, has_kwargs))
    try:
        with ModulesThatRun() as modules:
            values = [x.detach().requires_grad_(x.requires_grad) for x in arguments.tensors]
            graph = record(recorder, values, dynamic)
    except RuntimeError as error:
        # The loss that .backward() was called on, say, whose graph is gone: it can't be returned.
        if reason := recorder.closed_over.restore():
            raise not_kept(reason) from error
        if is_value_read(error):
            raise value_read(error) from error
        if "a leaf Variable that requires grad" in str(error):
            raise written_to(error) from error
        raise
    if reason := recorder.closed_over.restore() or recorder.reason:
        raise not_kept(reason)
    move_inputs_to_front(graph.graph)
    _detach_aliases(graph.graph)
    closed_over = [*recorder.closed_over.tensors, *_lift_constants(graph)]
    _check_leaves(closed_over)
    _lift_cotangents(graph, recorder.cotangents)
    if any(writes(node) for node in graph.graph.nodes):
        graph = _without_mutations(graph, dynamic)
    by = []
    if recorder.cotangents:
        by = [i for i, tensor in enumerate(arguments.tensors) if tensor.requires_grad]
        by += [len(arguments.tensors) + _index(closed_over, leaf) for leaf in recorder.leaves]
    return Traced(
        graph,
        closed_over,
        places_of(func, modules.found.values(), closed_over),
        recorder.constants,
        recorder.structure,
        recorder.differentiable,
        by,
        recorder.tensor_outputs,
        recorder.call,
    )


def _detach_aliases(graph: fx.Graph) -> None:
    """What a trace has for ``detach``, in some releases, requires grad where its input does."""
    for node in graph.nodes:
        if node.target is torch.ops.aten.alias.default:
            node.target = torch.ops.aten.detach.default


class _Recorder:
    """The function that is traced: outputs, then gradients, then (to be found) the cotangents."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.closed_over = ClosedOver()
        self.leaves: list[Tensor] = []
        self.cotangents = 0
        self.reason: str | None = None

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        with self.closed_over, Called():
            return self._run(tensors)

    def _run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        with_grad = torch.is_grad_enabled()
        required_grad = [tensor.requires_grad for tensor in tensors]
        results, self.structure = flatten(self.call(tensors))
        if [tensor.requires_grad for tensor in tensors] != required_grad:
            self.reason = "makes an argument require grad, or writes such a value to one"
        outputs = [
            leaf if isinstance(leaf, FakeTensor) else torch.ops.aten.alias(leaf)
            for leaf in results
            if isinstance(leaf, Tensor)
        ]
        self.constants = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in results]
        self.tensor_outputs = len(outputs)
        self.differentiable = [i for i, x in enumerate(outputs) if with_grad and x.requires_grad]
        if not self.differentiable:
            return outputs
        roots = [outputs[i] for i in self.differentiable]
        given = [tensor for tensor in tensors if tensor.requires_grad]
        self.leaves = [leaf for leaf in _leaves_behind(roots) if type(leaf) is not FakeTensor]
        cotangents = [
            torch.empty_like(root, memory_format=torch.contiguous_format, requires_grad=False)
            for root in roots
        ]
        self.cotangents = len(cotangents)
        found = torch.autograd.grad(roots, given + self.leaves, cotangents, allow_unused=True)
        gradients = [
            torch.zeros_like(x) if gradient is None else gradient
            for gradient, x in zip(found, given + self.leaves, strict=True)
        ]
        return [*outputs, *gradients, *cotangents]


def _leaves_behind(roots: list[Tensor]) -> list[Tensor]:
    """The tensors that autograd would leave a gradient with."""
    found = [root for root in roots if root.grad_fn is None]
    pending = [root.grad_fn for root in roots]
    seen = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and all(variable is not other for other in found):
            found.append(variable)
        pending += [following for following, _ in node.next_functions]
    return found


def _index(tensors: list[Tensor], tensor: Tensor) -> int:
    return next((i for i, each in enumerate(tensors) if each is tensor), -1)


def placeholders_of(graph: fx.GraphModule) -> list[fx.Node]:
    """The nodes of the graph's inputs."""
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def output_of(graph: fx.GraphModule) -> Any:
    """The node of the graph's results."""
    return next(node for node in reversed(graph.graph.nodes) if node.op == "output")


def _add_input(graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    inputs = placeholders_of(graph)
    before = inputs[-1].next if inputs else next(iter(graph.graph.nodes))
    with graph.graph.inserting_before(before):
        node = graph.graph.placeholder(name)
    node.meta["val"] = value
    return node


def _lift_constants(graph: fx.GraphModule) -> list[Tensor]:
    """Makes inputs of the tensors that the graph holds; returns them."""
    constants: list[Tensor] = []
    inputs: list[fx.Node] = []
    for node in [node for node in graph.graph.nodes if node.op == "get_attr"]:
        value = getattr(graph, node.target, None)
        if not isinstance(value, Tensor):
            continue
        position = _index(constants, value)
        if position < 0:
            position = len(constants)
            values = [n.meta.get("val") for n in graph.graph.nodes]
            mode = detect_fake_mode([v for v in values if isinstance(v, Tensor)])
            stand_in = (mode or FakeTensorMode()).from_tensor(value, static_shapes=True)
            inputs.append(_add_input(graph, f"constant_{position}", stand_in))
            constants.append(value)
        node.replace_all_uses_with(inputs[position])
        graph.graph.erase_node(node)
    graph.recompile()
    return constants


def _check_leaves(constants: list[Tensor]) -> None:
    for tensor in constants:
        if torch.is_grad_enabled() and tensor.requires_grad and not tensor.is_leaf:
            raise RuntimeError(
                "functorch_ext.jit: the function closes over a tensor of shape "
                f"{tuple(tensor.shape)} that was computed from others that require grad. Its graph "
                "would not be followed at later calls: pass the tensor as an argument, or compute "
                "it inside."
            )


def _lift_cotangents(graph: fx.GraphModule, count: int) -> None:
    """Makes inputs of the cotangents, which the recorded function made itself."""
    if count == 0:
        return
    output = output_of(graph)
    results = list(output.args[0])
    output.args = (results[:-count],)
    for number, node in enumerate(results[-count:]):
        node.replace_all_uses_with(_add_input(graph, f"cotangent_{number}", node.meta["val"]))
        graph.graph.erase_node(node)
    graph.recompile()


def writes(node: fx.Node) -> bool:
    """Does the node write to an argument?"""
    return (
        node.op == "call_function"
        and isinstance(node.target, torch._ops.OpOverload)
        and node.target._schema.is_mutable
    )


def draws(node: fx.Node) -> bool:
    """Does the node draw random numbers?"""
    return (
        isinstance(node.target, torch._ops.OpOverload)
        and torch.Tag.nondeterministic_seeded in node.target.tags
    )


def _without_mutations(graph: fx.GraphModule, dynamic: bool) -> fx.GraphModule:
    """The same graph with values instead of writes; inputs are written to in the end."""
    values = [node.meta["val"].detach() for node in placeholders_of(graph)]
    with torch.no_grad():
        return record(functionalize(graph), values, dynamic)
