"""A traced function that has been compiled, and how it is called."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from functorch_ext import _C
from functorch_ext._jit import twice
from functorch_ext._jit.partition import partition
from functorch_ext._jit.passes import optimize
from functorch_ext._jit.signature import key_of_tensor
from functorch_ext._jit.trace import Traced, draws, placeholders_of, writes
from functorch_ext._jit.watched import is_same
from functorch_ext._pytree import unflatten

Backend = Callable[[fx.GraphModule, list[Tensor], list[int]], Callable[[list[Tensor]], Any]]

_set_grad_enabled = torch._C._set_grad_enabled


class BackwardPlan(NamedTuple):
    """How C++ runs the backward half after the forward half (`csrc/python/jitted_backward.h`)."""

    backward: int
    outputs: int
    differentiable: list[int]
    by: list[int]
    saved: list[int]
    strides: list[tuple[int, ...]]


class Compiled:
    """One traced and compiled function, for calls of one signature."""

    def __init__(self, traced: Traced, tensors: list[Tensor], backend: Backend) -> None:
        self.arguments = len(tensors)
        self.closed_over, self.watched = traced.closed_over, traced.watched
        self.key_of_closed_over = [key_of_tensor(each) for each in self.closed_over]
        inputs = placeholders_of(traced.graph)
        written = {node.args[0] for node in traced.graph.graph.nodes if writes(node)}
        self.written = [i for i, node in enumerate(inputs) if node in written]
        self.constants, self.structure = traced.outputs, traced.structure
        self.is_one_tensor = traced.structure.is_leaf() and traced.tensor_outputs == 1
        self.outputs = traced.tensor_outputs
        self.differentiable = traced.differentiable
        self.backward: Callable[[list[Tensor]], Any] | None = None
        self.kernel = 0  # of a graph that can be called without Python
        self.results = self.outputs  # of the kernel
        self.backward_plan: Any = None
        self.plain_result = self._plain_result()
        self._compile(traced, inputs, backend)
        # Passes and backends ask for sizes too.
        self.guards = _guards(inputs[: len(tensors)])

    def _compile(self, traced: Traced, inputs: list[fx.Node], backend: Backend) -> None:
        if not self.differentiable:
            self.graphs = [optimize(traced.graph)]
            values = [node.meta["val"] for node in inputs]
            self.forward = backend(self.graphs[0], values, self.written)
            self.kernel = getattr(self.forward, "address", 0)
            return
        self.by = traced.by
        self.call = traced.call
        self.draws = any(draws(node) for node in traced.graph.graph.nodes)
        halves = partition(traced)
        self.graphs = [optimize(halves.forward), optimize(halves.backward)]
        self.forward = backend(self.graphs[0], halves.values[0], self.written)
        self.backward = backend(self.graphs[1], halves.values[1], [])
        self.strides = [value.stride() for value in halves.values[1][len(halves.saved) :]]
        self.saved = halves.saved
        kernels = [getattr(each, "address", 0) for each in (self.forward, self.backward)]
        if all(kernels):
            self.kernel, self.results = kernels[0], self.outputs + halves.made
            self.backward_plan = BackwardPlan(
                kernels[1], self.outputs, self.differentiable, self.by, self.saved, self.strides
            )

    def fits(self, tensors: list[Tensor]) -> bool:
        """Is this what the function would be traced to again?"""
        for tensor, key in zip(self.closed_over, self.key_of_closed_over):
            if key_of_tensor(tensor) != key:
                return False
        if not all(is_same(place) for place in self.watched):
            return False
        return self.guards is None or self.guards(tensors)

    def __call__(self, tensors: list[Tensor]) -> Any:
        inputs = [*tensors, *self.closed_over] if self.closed_over else tensors
        if self.differentiable:
            results = _Differentiable.apply(self, *inputs)
        elif torch.is_grad_enabled():
            _set_grad_enabled(False)
            try:
                results = self.forward(inputs)
            finally:
                _set_grad_enabled(True)
        else:
            results = self.forward(inputs)
        return self.result(results)

    def result(self, tensors: Sequence[Any]) -> Any:
        """What the function returns, with these tensors in it."""
        if self.is_one_tensor:
            return tensors[0]
        remaining = iter(tensors)
        leaves = [next(remaining) if each is None else each[0] for each in self.constants]
        return unflatten(self.structure, leaves)

    def _plain_result(self) -> Any:
        """The result with slots for its tensors, if it is made of dicts, lists and tuples."""
        result = self.result([_C.Slot(i) for i in range(self.outputs)])
        return result if _count_slots(result) == self.outputs else None

    def writes_to_shared_memory(self, tensors: list[Tensor]) -> bool:
        """Would a write to an input be seen through another?"""
        inputs = [*tensors, *self.closed_over]
        addresses = [each.untyped_storage().data_ptr() for each in inputs]
        return any(addresses.count(addresses[i]) > 1 for i in self.written)


def _count_slots(tree: Any, depth: int = 0) -> int:
    if type(tree) in (dict, list, tuple) and depth < 16:
        children = tree.values() if type(tree) is dict else tree
        return sum(_count_slots(child, depth + 1) for child in children)
    return isinstance(tree, _C.Slot)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compiled: Compiled, *inputs: Tensor) -> tuple[Tensor, ...]:
        results = tuple(compiled.forward(list(inputs)))
        outputs, known = results[: compiled.outputs], (*inputs, *results)
        ctx.compiled, ctx.inputs = compiled, twice.remember(inputs)
        ctx.save_for_backward(*[known[i] for i in compiled.saved])
        constant = [x for i, x in enumerate(outputs) if i not in compiled.differentiable]
        ctx.mark_non_differentiable(*constant)
        return outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # with create_graph=True
            return None, *twice.gradients(ctx.compiled, ctx.inputs, cotangents)
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.inputs = None
        compiled = ctx.compiled
        given = [cotangents[i] for i in compiled.differentiable]
        given = [
            each
            if _agree(each.stride(), stride)
            else each.clone(memory_format=torch.contiguous_format)
            for each, stride in zip(given, compiled.strides)
        ]
        found = compiled.backward([*ctx.saved_tensors, *given])
        gradients: list[Tensor | None] = [None] * (len(ctx.needs_input_grad) - 1)
        for position, gradient in zip(compiled.by, found):
            gradients[position] = gradient
        return None, *gradients


def _agree(strides: tuple[int, ...], traced: tuple[Any, ...]) -> bool:
    return all(type(n) is int for n in traced) and strides == traced


def _guards(arguments: list[fx.Node]) -> Callable[[list[Tensor]], bool] | None:
    """What a graph of symbolic sizes was compiled for; none if sizes are fixed."""
    values = [node.meta["val"] for node in arguments]
    symbolic = [v for v in values if any(isinstance(n, torch.SymInt) for n in v.shape)]
    if not symbolic:
        return None
    shape_env = symbolic[0].fake_mode.shape_env
    code = shape_env.produce_guards_expression(values, ignore_static=False)
    if code is None:
        return None
    return lambda tensors: shape_env.evaluate_guards_expression(code, tensors)
