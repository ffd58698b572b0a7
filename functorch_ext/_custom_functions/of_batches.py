"""A custom ``torch.autograd.Function`` as one function of whole batches.

Its forward, backward and jvp run on samples: on a level of their own, above all that they get.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from functorch_ext import _C
from functorch_ext._custom_functions.context import (
    Context,
    Dim,
    Recording,
    as_tuple,
    call_backward,
    call_forward,
    is_once_differentiable,
    is_outside,
)
from functorch_ext._custom_functions.loop import (
    all_or_each,
    differs_between_samples,
    forward_of_each,
)
from functorch_ext._custom_functions.own_tensors import Failures, OwnTensors
from functorch_ext._pytree import leaves_of, unflatten


class Call:
    """One application of a custom function to whole batches."""

    # What its forward finds out.
    recording: Recording
    shapes: list[torch.Size | None]
    returns_tuple: bool
    is_batched: bool
    out_dims: list[Dim]

    def __init__(
        self, cls: type[Function], level: _C.Level, args: Any, structure: Any, dims: list[Dim]
    ) -> None:
        self.cls, self.level, self.structure, self.dims = cls, level, structure, dims
        self.batch_size = level.batch_size if level.has_samples else 1
        self.randomness = level.randomness if level.has_samples else _C.Randomness.SAME
        self.loops, self.is_lost = 0, False
        self.closes_over = False  # over tensors of the vmap's
        self.shared = [is_outside(level, leaf) for leaf in leaves_of(args)]
        self.needs_inside = [level.differentiates((arg,)) for arg in args]
        nested = args[0].is_once if cls is OfBatches else False
        self.is_once = nested or is_once_differentiable(cls.backward)
        # The leaf that each argument is, if it is one by itself.
        self.positions: list[int | None] = []
        offset = 0
        for child in structure.children():
            self.positions.append(offset if child.is_leaf() else None)
            offset += child.num_leaves

    def run(self, body: Callable[[OwnTensors], list[Any]], tensors: Any) -> list[Any]:
        """``body(own)`` on a level to compute the samples on, above all the tensors.

        If the function turns out to close over tensors of the vmap's, it runs with what stands for
        them on that level.
        """
        above = [tensor for tensor in tensors if isinstance(tensor, Tensor)]

        def on(level: _C.Level) -> list[Any]:
            own = OwnTensors(self.level, level)
            with own if self.closes_over else contextlib.nullcontext():
                results = body(own)
            own.check(results)
            return results

        run = functools.partial(_C.run_batch, on, self.batch_size, self.randomness, above)
        if not self.closes_over:
            failures = Failures()
            try:
                return run()
            except RuntimeError:
                if not failures.of_foreign():
                    raise
            self.closes_over = True
        return run()

    def as_samples(self, own: OwnTensors, leaves: Any) -> list[Any]:
        """The arguments on the samples' level, but for those by which the planes below
        differentiate and which all samples share: the function may know them from elsewhere too, as
        a module's parameters, and differentiate by them.
        """
        samples = [
            leaf if shared else wrap(own.level, leaf, dim)
            for leaf, dim, shared in zip(leaves, self.dims, self.shared, strict=True)
        ]
        own.note(leaves, samples)
        return samples

    def as_sample(self, level: _C.Level, output: Any) -> Any:
        """An output as a tensor of the samples' level: it may be closed over, of the vmap's own."""
        if not isinstance(output, Tensor):
            return output
        value, dim = self.level.unwrap(output)
        return output if value is output else level.wrap(value, dim)

    def forward(
        self, needs: tuple[bool, ...], level: _C.Level, samples: list[Any]
    ) -> tuple[Context, Any]:
        """What the function's forward left for its backward, and its outputs."""
        failures = Failures()
        try:
            context = Context(needs)
            return context, call_forward(self.cls, context, unflatten(self.structure, samples))
        except RuntimeError:
            if self.batch_size == 0 or not failures.of_memory():
                raise
        context, outputs = forward_of_each(self.cls, level, needs, self.structure, samples)
        self.loops += 1
        self.is_lost = self.loops > 1 and differs_between_samples(context)
        return context, outputs

    @property
    def recorded(self) -> Recording:
        """The recording, for a derivative: of the last loop, if an outer one ran several."""
        if self.is_lost:
            raise RuntimeError(
                f"functorch_ext.vmap: inside two vmaps, the forward of {self.cls.__name__} leaves "
                "on ctx what is no tensor and differs between samples. Use save_for_backward."
            )
        return self.recording

    def needs(self, ctx: Any) -> tuple[bool, ...]:
        """Which arguments need a gradient."""
        flags = ctx.needs_input_grad[1:]
        return tuple(position is not None and flags[position] for position in self.positions)


class OfBatches(Function):
    """A custom function as one of whole batches; samples take its forward, backward and jvp."""

    @staticmethod
    def forward(ctx: Any, call: Call, *leaves: Any) -> tuple[Any, ...]:
        def body(own: OwnTensors) -> list[Any]:
            level, samples = own.level, call.as_samples(own, leaves)
            call.shapes = [x.shape if isinstance(x, Tensor) else None for x in samples]
            both = zip(call.needs(ctx), call.needs_inside, strict=True)
            needs = tuple(below or inside for below, inside in both)
            context, outputs = call.forward(needs, level, samples)
            call.returns_tuple = isinstance(outputs, tuple)
            outputs = [call.as_sample(level, output) for output in as_tuple(outputs)]
            tensors = [output for output in outputs if isinstance(output, Tensor)]
            # Cotangents differ between samples if anything does: no output is shared then.
            kept = [x for x in context.kept() if isinstance(x, Tensor)]
            call.is_batched = any(d is not None for d in call.dims) or any(
                level.is_batched(own.of(tensor)) for tensor in (*tensors, *kept)
            )
            pairs = [_stacked(level, output, call.is_batched) for output in outputs]
            values, call.out_dims = [value for value, _ in pairs], [dim for _, dim in pairs]
            values = _apart_from(leaves, values, samples, outputs)
            call.recording = Recording(
                context, own, [*samples, *outputs], [*leaves, *values],
                [*call.dims, *call.out_dims],
            )  # fmt: skip
            return values

        values = call.run(body, leaves)
        recording = call.recording
        recording.mark(ctx, recording.values)
        saved = [recording.values[i] for i in recording.indices]
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        ctx.call = call
        return (*values, *recording.release())

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
        pull_back = once_differentiable(_pull_back) if ctx.call.is_once else _pull_back
        return pull_back(ctx, *cotangents)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Any) -> tuple[Any, ...]:
        call, saved = ctx.call, ctx.saved_tensors

        def body(own: OwnTensors) -> list[Any]:
            level = own.level
            context = call.recorded.context(call.needs(ctx), own, saved, forward=True)
            samples = _wrapped(level, tangents, call.dims)
            given = [None if p is None else samples[p] for p in call.positions]
            pushed = as_tuple(all_or_each("jvp", call.cls, call.cls.jvp, context, given))
            value = level.stacked if call.is_batched else lambda tangent, _: _value(level, tangent)
            return [
                value(tangent, dim) if isinstance(tangent, Tensor) else tangent
                for tangent, dim in zip(pushed, call.out_dims, strict=True)
            ]

        results = call.run(body, (*saved, *tangents))
        return (*results, *[None] * len(call.recording.extra_dims))


def _apart_from(
    leaves: tuple[Any, ...], values: list[Any], samples: list[Any], outputs: list[Any]
) -> list[Any]:
    """The values of outputs, where those that are no input (``x.data``, say) aren't one below."""
    inputs = {id(leaf) for leaf in leaves} - {id(None)}
    returned = {id(sample) for sample in samples}
    return [
        value.data if id(value) in inputs and id(output) not in returned else value
        for value, output in zip(values, outputs, strict=True)
    ]


def _pull_back(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
    call, saved = ctx.call, ctx.saved_tensors

    def body(own: OwnTensors) -> list[Any]:
        level = own.level
        context = call.recorded.context(call.needs(ctx), own, saved, forward=False)
        given = _wrapped(level, cotangents[: len(call.out_dims)], call.out_dims)
        pull_back = lambda ctx, *cotangents: call_backward(call.cls, ctx, list(cotangents))
        found = all_or_each("backward", call.cls, pull_back, context, given)
        gradients = list(found[: len(call.positions)])
        too_many = any(gradient is not None for gradient in found[len(gradients) :])
        if too_many or len(gradients) != len(call.positions):
            raise RuntimeError(
                f"functorch_ext.vmap: the backward of {call.cls.__name__} returned {len(found)} "
                f"gradients for {len(call.positions)} arguments. Return one for each, or None."
            )
        results: list[Any] = [None] * len(call.dims)
        for position, gradient in zip(call.positions, gradients, strict=True):
            if position is not None and gradient is not None:
                results[position] = _of_argument(level, call, position, gradient)
        return results

    return (None, *call.run(body, (*saved, *cotangents)))


def _of_argument(level: _C.Level, call: Call, position: int, gradient: Tensor) -> Tensor:
    """The gradient of an argument, from that of its samples."""
    shape, dim = call.shapes[position], call.dims[position]
    if shape is not None and gradient.shape != shape:
        gradient = gradient.sum_to_size(shape)
    if dim is not None:
        return level.stacked(gradient, dim)
    if level.is_batched(gradient) and not call.is_batched:
        raise RuntimeError(
            f"functorch_ext.vmap: the gradients that {call.cls.__name__}.backward returns differ "
            "between samples, but nothing that its forward got, kept or returned does. Give what "
            "differs to the function as an argument, or keep it on ctx."
        )
    return level.stacked(gradient, 0).sum(0) if call.is_batched else _value(level, gradient)


def _value(level: _C.Level, tensor: Tensor) -> Tensor:
    """What a tensor that is the same for all samples stands for."""
    return level.unwrap(tensor)[0]


def _wrapped(level: _C.Level, leaves: Any, dims: list[Dim]) -> list[Any]:
    return [wrap(level, leaf, dim) for leaf, dim in zip(leaves, dims, strict=True)]


def wrap(level: _C.Level, leaf: Any, dim: Dim) -> Any:
    return level.wrap(leaf, dim) if isinstance(leaf, Tensor) else leaf


def _stacked(level: _C.Level, output: Any, is_batched: bool) -> tuple[Any, Dim]:
    """An output's value and bdim; with a bdim in any case if anything is batched."""
    if not isinstance(output, Tensor):
        return output, None
    value, dim = level.unwrap(output)
    if is_batched and dim is None:
        # A copy, or it would be a view of an expanded input. (x.clone() belongs to the level.)
        return torch.ops.aten.clone.default(level.stacked(output, 0)), 0
    return value, dim
