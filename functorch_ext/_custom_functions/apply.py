"""Custom ``torch.autograd.Function`` on the tensors of a ``vmap``.

Autograd of the vmap's own plane runs a custom function as PyTorch does everywhere. But where a
derivative flows through the values, on a plane below, that plane sees only the operators of the
forward, and would differentiate those. So there the function is applied to the values, as one
function of whole batches: its ``vmap`` staticmethod if it has one, else :class:`_OfBatches`.
"""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from functorch_ext import _C, _patches
from functorch_ext._custom_functions.context import (
    Context,
    Dim,
    Recording,
    as_tuple,
    call_backward,
    call_forward,
    has_setup,
    is_once_differentiable,
)
from functorch_ext._custom_functions.forward import lacks_jvp, push_forward
from functorch_ext._custom_functions.loop import (
    all_or_each,
    differs_between_samples,
    forward_of_each,
    reads_memory,
)
from functorch_ext._describing import kind_of
from functorch_ext._pytree import flatten, leaves_of, unflatten
from functorch_ext.vmap import output_dims

# Where a function keeps the form of it that lifts its constants.
_LIFTING = "_functorch_ext_lifting"


class VmapInfo(NamedTuple):
    """What a ``vmap`` staticmethod is told of the vmap that it runs under."""

    batch_size: int
    randomness: str


def install() -> None:
    """Teaches ``torch.autograd.Function.apply`` about the engine's wrappers."""
    bound: Any = Function.apply
    apply = bound.__func__
    plain = types.FunctionType(
        apply.__code__, apply.__globals__, apply.__name__, apply.__defaults__, apply.__closure__
    )

    def with_wrappers(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        if _C.tangent_flows(args) and lacks_jvp(function := _of_samples(cls, args)):
            again = functools.partial(apply, cls, **kwargs)
            return push_forward(function.__name__, again, args)
        level = _C.level_of((*args, *kwargs.values()) if kwargs else args)
        if level is None:
            if (functional := _C.level_of_tensors(args)) is not None:
                _check_functionalized(functional, cls, args)
            return plain(cls, *args, **kwargs)
        # If transforms of torch.func's run, they are around the level: its tensors aren't theirs.
        around = torch._C._are_functorch_transforms_active()
        return _apply(_past_torch_func if around else plain, level, cls, args, kwargs)

    # Programs keep `op = MyFunction.apply`, perhaps since before this import. So it is the code of
    # the function that is replaced, not the attribute.
    apply.__globals__["_functorch_ext_apply"] = _C.switch(plain, with_wrappers)
    entry: Any = _Entry.apply
    _patches.add(
        _patches.Patch(
            "torch.autograd.Function.apply (its code)",
            "custom Functions inside vmap, and forward mode through those without a jvp",
            "one call of Python, which hands the arguments on",
            functools.partial(setattr, apply, "__code__", entry.__func__.__code__),
            functools.partial(setattr, apply, "__code__", plain.__code__),
        )
    )


def _past_torch_func(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
    """What ``Function.apply`` does where no transform of torch.func's runs."""
    with enable_single_level_autograd_function():
        return super(Function, cls).apply(*args, **kwargs)  # type: ignore[misc]


def _check_not_in_torch_func(cls: type[Function]) -> None:
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            f"functorch_ext: {cls.__name__} is applied inside a vmap inside a transform of "
            "torch.func's that differentiates it. Give it a vmap staticmethod, or use "
            "functorch_ext's transforms in both places."
        )


def _of_samples(cls: type[Function], args: tuple[Any, ...]) -> type[Function]:
    """The function of the program's that an application of whole batches stands for."""
    while cls is _OfBatches:
        call, args = args[0], args[1:]
        cls = call.cls
    return cls


class _Entry(Function):
    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        # A closure of one cell, as the function has that gets this code.
        __class__  # type: ignore[name-defined]  # noqa: B018, F821
        # A global of that function.
        return _functorch_ext_apply(cls, *args, **kwargs)  # type: ignore[name-defined]  # noqa: F821


def _apply(
    plain: Callable[..., Any],
    level: _C.Level,
    cls: type[Function],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if has_setup(cls):
        bound = inspect.signature(cls.forward).bind(*args, **kwargs)
        bound.apply_defaults()
        args, kwargs = bound.args, bound.kwargs
    has_rule = cls.vmap is not Function.vmap
    if kwargs or not (has_rule or level.is_differentiated_below(args)):
        recorded = _lifting(cls) if level.differentiates(args) else cls
        refusals = _C.memory_refusals()
        try:
            return plain(recorded, *args, **kwargs)
        except RuntimeError:
            if kwargs or not level.is_batch or not level.batch_size or not reads_memory(refusals):
                raise

    leaves, structure = flatten(args)
    pairs = [level.unwrap(leaf) if isinstance(leaf, Tensor) else (leaf, None) for leaf in leaves]
    values, dims = [value for value, _ in pairs], [dim for _, dim in pairs]
    is_batched = any(dim is not None for dim in dims)
    is_recorded = level.differentiates(args)
    by_rule = has_rule and is_batched
    _check(cls, by_rule, is_recorded)
    call: Any = None
    if by_rule:
        outputs, out_dims = _C.run_below(level, _by_rule, cls, level, structure, values, dims)
    elif has_rule and (has_setup(cls) or not is_recorded):
        outputs = _C.run_below(level, cls.apply, *unflatten(structure, values))
        out_dims = [None] * len(as_tuple(outputs))
    else:
        _check_not_in_torch_func(cls)
        call = _C.run_below(level, _Call, cls, level, args, structure, dims)
        outputs = _C.run_below(level, _OfBatches.apply, call, *values)
        out_dims = call.out_dims + call.recording.extra_dims

    # Back up. A value that was written to in place comes back as the tensor it is the value of.
    written = {id(value): leaf for value, leaf in zip(values, leaves, strict=True)}
    wrapped = [
        written[id(value)] if id(value) in written else _wrap(level, value, dim)
        for value, dim in zip(as_tuple(outputs), out_dims, strict=True)
    ]
    is_tuple = isinstance(outputs, tuple) if call is None else call.returns_tuple
    visible = wrapped if call is None else wrapped[: len(call.out_dims)]
    result = tuple(visible) if is_tuple else visible[0]
    if not is_recorded:
        return result

    # Autograd of this level records the function too, with the result that is known by now. The
    # class lives as long as the graph, and then until cycles are collected. It must keep neither
    # the result, which keeps the graph, nor the level.
    known = [(result, wrapped, call)]
    del result, wrapped, visible

    def forward(*inputs: Any) -> Any:
        result, wrapped, call = known.pop()
        if not has_setup(cls):
            call.recorded.repeat(inputs[0], [*flatten(inputs[1:])[0], *wrapped])
        return result

    lifted = [level.wrap(*level.unwrap(arg)) if _is_below(level, arg) else arg for arg in args]
    return plain(_subclass(cls, forward), *lifted)


def _check_functionalized(level: _C.Level, cls: type[Function], args: tuple[Any, ...]) -> None:
    """functionalize runs the forward as it is, where nobody records it for the planes below."""
    if level.is_differentiated_below(args):
        raise RuntimeError(
            f"functorch_ext.functionalize: {cls.__name__}, a custom autograd.Function, is "
            "differentiated by a transform outside of functionalize, which would lose its "
            "derivatives. Differentiate inside instead: functionalize(grad(f)), not "
            "grad(functionalize(f))."
        )


def _check(cls: type[Function], by_rule: bool, is_recorded: bool) -> None:
    if by_rule and cls.generate_vmap_rule:
        raise RuntimeError(
            f"functorch_ext.vmap: {cls.__name__} has both a vmap staticmethod and "
            "generate_vmap_rule=True. Keep one of them."
        )
    if by_rule and is_recorded and not has_setup(cls):
        raise RuntimeError(
            f"functorch_ext.vmap: {cls.__name__} has a vmap staticmethod and is differentiated "
            "inside the vmap, which takes a setup_context staticmethod and a forward without ctx."
        )


def _is_below(level: _C.Level, arg: Any) -> bool:
    return isinstance(arg, Tensor) and level.unwrap(arg)[0] is arg


def _lifting(cls: type[Function]) -> type[Function]:
    """The function with all outputs on the plane that records it, constants included.

    The constants may be tensors from outside, or arguments passed on. Autograd gives them the
    derivatives that the function's backward and jvp tell.
    """
    if known := cls.__dict__.get(_LIFTING):
        return known

    def forward(*args: Any, **kwargs: Any) -> Any:
        outputs = cls.forward(*args, **kwargs)
        level = _C.level_of(args)
        assert level is not None  # arguments of it are differentiated
        below = {id(x): level.wrap(x, None) for x in as_tuple(outputs) if _is_below(level, x)}
        if not below:
            return outputs
        if not has_setup(cls):
            ctx, marked = args[0], args[0].non_differentiable or ()
            ctx.mark_non_differentiable(*[below.get(id(tensor), tensor) for tensor in marked])
        lifted = tuple(below.get(id(output), output) for output in as_tuple(outputs))
        return lifted if isinstance(outputs, tuple) else lifted[0]

    lifting = _subclass(cls, forward)
    setattr(cls, _LIFTING, lifting)
    return lifting


def _subclass(cls: type[Function], forward: Callable[..., Any]) -> type[Function]:
    """The function with another forward."""
    members = {"forward": staticmethod(forward), "__module__": cls.__module__}
    make: Any = type(cls)
    return make(cls.__name__, (cls,), members)


def _by_rule(
    cls: type[Function], level: _C.Level, structure: Any, values: list[Any], dims: list[Dim]
) -> tuple[Any, list[Dim]]:
    """The function's own vmap staticmethod: its outputs, and their bdims."""
    info = VmapInfo(level.batch_size, level.randomness.name.lower())
    returned = cls.vmap(info, unflatten(structure, dims), *unflatten(structure, values))
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise RuntimeError(
            f"functorch_ext.vmap: the vmap staticmethod of {cls.__name__} must return "
            f"(output, out_dims), but it returned {kind_of(returned)}."
        )
    outputs, out_dims = returned
    dims = output_dims(out_dims, outputs)
    return outputs, [
        dim + leaf.dim() if dim is not None and dim < 0 else dim
        for leaf, dim in zip(leaves_of(outputs), dims, strict=True)
    ]


class _Call:
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
        self.batch_size = level.batch_size if level.is_batch else 1
        self.randomness = level.randomness if level.is_batch else _C.Randomness.SAME
        self.loops, self.is_lost = 0, False
        self.needs_inside = [level.differentiates((arg,)) for arg in args]
        nested = args[0].is_once if cls is _OfBatches else False
        self.is_once = nested or is_once_differentiable(cls.backward)
        # The leaf that each argument is, if it is one by itself.
        self.positions: list[int | None] = []
        offset = 0
        for child in structure.children():
            self.positions.append(offset if child.is_leaf() else None)
            offset += child.num_leaves

    def run(self, body: Callable[[_C.Level], Any], tensors: Any) -> Any:
        """``body(level)`` on a level to compute the samples on, above all the tensors."""
        above = [tensor for tensor in tensors if isinstance(tensor, Tensor)]
        return _C.run_batch(body, self.batch_size, self.randomness, above)

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
        refusals = _C.memory_refusals()
        try:
            context = Context(needs)
            return context, call_forward(self.cls, context, unflatten(self.structure, samples))
        except RuntimeError:
            if self.batch_size == 0 or not reads_memory(refusals):
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


class _OfBatches(Function):
    """A custom function as one of whole batches; samples take its forward, backward and jvp."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *leaves: Any) -> tuple[Any, ...]:
        def body(level: _C.Level) -> tuple[list[Any], Recording]:
            samples = _wrapped(level, leaves, call.dims)
            call.shapes = [x.shape if isinstance(x, Tensor) else None for x in samples]
            both = zip(call.needs(ctx), call.needs_inside, strict=True)
            needs = tuple(below or inside for below, inside in both)
            context, outputs = call.forward(needs, level, samples)
            call.returns_tuple = isinstance(outputs, tuple)
            outputs = [call.as_sample(level, output) for output in as_tuple(outputs)]
            tensors = [output for output in outputs if isinstance(output, Tensor)]
            # Cotangents differ between samples if anything does: no output is shared then.
            call.is_batched = any(d is not None for d in call.dims) or any(
                level.is_batched(tensor) for tensor in tensors
            )
            pairs = [_stacked(level, output, call.is_batched) for output in outputs]
            values, call.out_dims = [value for value, _ in pairs], [dim for _, dim in pairs]
            return values, Recording(
                context, level, [*samples, *outputs], [*leaves, *values],
                [*call.dims, *call.out_dims],
            )  # fmt: skip

        values, recording = call.run(body, leaves)
        call.recording = recording
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

        def body(level: _C.Level) -> list[Any]:
            context = call.recorded.context(call.needs(ctx), level, saved, forward=True)
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


def _pull_back(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
    call, saved = ctx.call, ctx.saved_tensors

    def body(level: _C.Level) -> list[Any]:
        context = call.recorded.context(call.needs(ctx), level, saved, forward=False)
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


def _of_argument(level: _C.Level, call: _Call, position: int, gradient: Tensor) -> Tensor:
    """The gradient of an argument, from that of its samples."""
    shape, dim = call.shapes[position], call.dims[position]
    if shape is not None and gradient.shape != shape:
        gradient = gradient.sum_to_size(shape)
    if dim is not None:
        return level.stacked(gradient, dim)
    return level.stacked(gradient, 0).sum(0) if call.is_batched else _value(level, gradient)


def _value(level: _C.Level, tensor: Tensor) -> Tensor:
    """What a tensor that is the same for all samples stands for."""
    return level.unwrap(tensor)[0]


def _wrapped(level: _C.Level, leaves: Any, dims: list[Dim]) -> list[Any]:
    return [_wrap(level, leaf, dim) for leaf, dim in zip(leaves, dims, strict=True)]


def _wrap(level: _C.Level, leaf: Any, dim: Dim) -> Any:
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
