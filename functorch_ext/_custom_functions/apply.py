"""Custom ``torch.autograd.Function`` on the tensors of a ``vmap``.

Autograd of the vmap's own plane runs a custom function as PyTorch does everywhere. But where a
derivative flows through the values, on a plane below, that plane sees only the operators of the
forward, and would differentiate those. So there the function is applied to the values, as one
function of whole batches: its ``vmap`` staticmethod if it has one, else :class:`OfBatches`.
"""

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from functorch_ext import _C, _patches
from functorch_ext._custom_functions.context import (
    Dim,
    as_tuple,
    has_setup,
    is_outside,
)
from functorch_ext._custom_functions.forward import lacks_jvp, push_forward
from functorch_ext._custom_functions.of_batches import Call, OfBatches, wrap
from functorch_ext._custom_functions.own_tensors import Failures
from functorch_ext._describing import kind_of
from functorch_ext._pytree import flatten, leaves_of, unflatten
from functorch_ext._releases.autograd_function import (
    plain_apply,
    replacing_apply,
    single_level_apply,
)
from functorch_ext._stand_ins import given_here
from functorch_ext._taylor.carrier import Taylor
from functorch_ext.vmap import output_dims

# Where a function keeps the form of it that lifts its constants.
_LIFTING = "_functorch_ext_lifting"


class VmapInfo(NamedTuple):
    """What a ``vmap`` staticmethod is told of the vmap that it runs under."""

    batch_size: int
    randomness: str


def install() -> None:
    """Teaches ``torch.autograd.Function.apply`` about the engine's wrappers."""

    def with_wrappers(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        if Taylor in map(type, args):
            return Taylor.__torch_function__(cls.apply, (), args, kwargs)
        args, kwargs = given_here((args, kwargs))
        if _C.tangent_flows(args) and lacks_jvp(function := _of_samples(cls, args)):
            again = functools.partial(with_wrappers, cls, **kwargs)
            return push_forward(function.__name__, again, args)
        level = _C.level_of((*args, *kwargs.values()) if kwargs else args)
        if level is None:
            if (functional := _C.level_of_tensors(args)) is not None:
                _check_functionalized(functional, cls, args)
            level = _closed_over(args)
        if level is None:
            return plain_apply(cls, *args, **kwargs)
        # If transforms of torch.func's run, they are around the level: its tensors aren't theirs.
        around = torch._C._are_functorch_transforms_active()
        return _apply(single_level_apply if around else plain_apply, level, cls, args, kwargs)

    put_on, take_off = replacing_apply(with_wrappers)
    _patches.add(
        _patches.Patch(
            "torch.autograd.Function.apply (its code)",
            "custom Functions inside vmap, and forward mode through those without a jvp",
            _patches.IN_C,
            put_on,
            take_off,
        )
    )


def _closed_over(args: tuple[Any, ...]) -> _C.Level | None:
    """The vmap whose tensors a function may close over, though it gets none of them.

    It matters to planes below that differentiate by what the function gets. Inside a transform of
    torch.func's, the function's tensors are of that one.
    """
    running = None if torch._C._are_functorch_transforms_active() else _running_vmap()
    return running if running and running.is_differentiated_below(args) else None


def _running_vmap() -> _C.Level | None:
    """The innermost level, if it is a vmap's: neither that of a Jacobian's rows nor of values."""
    running = _C.call_outside_rules(_C.running_level)
    kinds = {depth: kind for kind, depth, _ in _C.running_levels()}
    return running if running and kinds[running.depth] == "vmap" else None


def _check_not_in_torch_func(cls: type[Function]) -> None:
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            f"functorch_ext: {cls.__name__} is applied inside a vmap inside a transform of "
            "torch.func's that differentiates it. Give it a vmap staticmethod, or use "
            "functorch_ext's transforms in both places."
        )


def _of_samples(cls: type[Function], args: tuple[Any, ...]) -> type[Function]:
    """The function of the program's that an application of whole batches stands for."""
    while cls is OfBatches:
        call, args = args[0], args[1:]
        cls = call.cls
    return cls


def _is_without_defaults(function: Any) -> bool:
    """Does it get just the arguments of the call?"""
    return isinstance(function, FunctionType) and not (
        function.__defaults__ or function.__kwdefaults__
    )


def _apply(
    plain: Callable[..., Any],
    level: _C.Level,
    cls: type[Function],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if has_setup(cls) and (kwargs or not _is_without_defaults(cls.forward)):
        bound = inspect.signature(cls.forward).bind(*args, **kwargs)
        bound.apply_defaults()
        args, kwargs = bound.args, bound.kwargs
    has_rule = cls.vmap is not Function.vmap
    if kwargs or not (has_rule or level.is_differentiated_below(args)):
        recorded = _lifting(cls) if level.differentiates(args) else cls
        failures = Failures()
        try:
            return plain(recorded, *args, **kwargs)
        except RuntimeError:
            if kwargs or not level.has_samples or not level.batch_size or not failures.of_memory():
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
        call = _C.run_below(level, Call, cls, level, args, structure, dims)
        failures = Failures()
        try:
            outputs = _C.run_below(level, OfBatches.apply, call, *values)
        except RuntimeError:
            # It may close over tensors of a deeper vmap than its arguments are of.
            running = _running_vmap()
            if running is None or running.depth <= level.depth or not failures.of_foreign():
                raise
            return _apply(plain, running, cls, args, kwargs)
        out_dims = call.out_dims + call.recording.extra_dims

    # Back up. A value that was written to in place comes back as the tensor it is the value of.
    written = {id(value): leaf for value, leaf in zip(values, leaves, strict=True)}
    wrapped = [
        written[id(value)] if id(value) in written else wrap(level, value, dim)
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
    shared = [leaf if is_outside(level, leaf) else None for leaf in leaves]
    known = [(result, wrapped, call, shared)]
    del result, wrapped, visible, shared

    def forward(*inputs: Any) -> Any:
        result, wrapped, call, shared = known.pop()
        if not has_setup(cls):
            given = zip(flatten(inputs[1:])[0], shared, strict=True)
            samples = [each if outside is None else outside for each, outside in given]
            call.recorded.repeat(inputs[0], [*samples, *wrapped])
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
