"""Custom autograd functions that read the memory of their tensors, as those in NumPy do.

A batch of samples has no memory that such code could read. So it runs sample by sample, with a
``FallbackWarning``: once it has turned out that it can't run on all at once.
"""

import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from functorch_ext import _C, _patches
from functorch_ext._custom_functions.context import Context, as_tuple, call_forward
from functorch_ext._custom_functions.own_tensors import Failures
from functorch_ext._pytree import flatten, leaves_of, unflatten
from functorch_ext._releases.autograd_function import HAS_BOXED_BACKWARD
from functorch_ext._warnings import warn_of_loop


def install() -> None:
    """Lets autograd run a backward or jvp of the user's sample by sample, where it has to.

    It runs on the plane of what flows through it, which the thread need not be on: rows of a
    Jacobian, say, or the samples of a vmap in another thread.
    """
    backward, jvp = BackwardCFunction.apply, BackwardCFunction.apply_jvp

    def apply(self: Any, *cotangents: Any) -> Any:
        return _C.call_on_plane_of(
            cotangents, all_or_each, "backward", self._forward_cls, backward, self, cotangents
        )

    def apply_boxed(self: Any, cotangents: list[Any]) -> Any:
        # The backward may empty the list that it gets: nothing else must hold what is in there.
        if not any(_C.describe(each) for each in cotangents if isinstance(each, Tensor)):
            return plain_boxed(self, cotangents)
        return apply(self, *cotangents)

    def apply_jvp(self: Any, *tangents: Any) -> Any:
        versions = [_version(tangent) for tangent in tangents]
        pushed = _C.call_on_plane_of(
            tangents, all_or_each, "jvp", self._forward_cls, jvp, self, tangents
        )
        # One that was written to, as the input was, has to come back itself.
        given = [t for t, version in zip(tangents, versions, strict=True) if _version(t) == version]
        if isinstance(pushed, tuple):
            return tuple(_as_view(tangent, given) for tangent in pushed)
        return _as_view(pushed, given)

    why = "custom Functions run on the plane of what flows through them, in NumPy sample by sample"
    at_levels = _C.switch_at_levels
    _patches.replace(BackwardCFunction, "apply", apply, why, switch=at_levels)
    _patches.replace(BackwardCFunction, "apply_jvp", apply_jvp, why)
    if HAS_BOXED_BACKWARD:
        plain_boxed = BackwardCFunction.apply_boxed
        _patches.replace(BackwardCFunction, "apply_boxed", apply_boxed, why, switch=at_levels)


def _version(tangent: Any) -> int:
    """How often it was written to."""
    return tangent._version if isinstance(tangent, Tensor) and not tangent.is_inference() else 0


def _as_view(tangent: Any, given: Sequence[Any]) -> Any:
    """A tangent that is a given one, or a view of it, as what autograd knows to be a view.

    Where a forward returns an input as it is, or a view of it, autograd wants the same of the
    tangents, and to see that itself.
    """
    for other in given:
        if isinstance(tangent, Tensor) and isinstance(other, Tensor):
            tangent = _C.as_view_of(tangent, other)
    return tangent


def all_or_each(
    what: str, cls: type, function: Callable[..., Any], ctx: Any, tensors: Sequence[Any]
) -> Any:
    """A backward or jvp: on all samples at once or, if it reads their memory, on each.

    Args:
        what: For the warning.
        cls: The custom function, for the warning.
        function: Takes ctx and tensors.
        ctx: What the forward left.
        tensors: Cotangents or tangents.
    """
    if not differs_between_samples(ctx):
        failures = Failures()
        try:
            return function(ctx, *tensors)
        except RuntimeError:
            if not failures.of_memory():
                raise
    saved = ctx.saved_tensors
    level = _C.level_of((*tensors, *saved, *leaves_of(dict(ctx.__dict__))))
    if level is None or not level.has_samples or level.batch_size == 0:
        return function(ctx, *tensors)  # and raise again
    _warn(what, cls)

    def run_each() -> list[Any]:
        results = []
        for index in range(level.batch_size):
            sample = _SampleContext(ctx, saved, level, index)
            given = _sample(level, tuple(tensors), index)
            results.append(as_tuple(all_or_each(what, cls, function, sample, given)))
        return results

    results = _C.run_below(level, run_each)
    stacked = tuple(_stacked(level, column) for column in zip(*results, strict=True))
    needed = (*tensors, *saved)
    if torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and _C.requires_grad_here(x) for x in needed
    ):
        return _once(cls, stacked, needed)
    return stacked


def forward_of_each(
    cls: type, level: _C.Level, needs: tuple[bool, ...], structure: Any, samples: list[Any]
) -> tuple[Context, Any]:
    """A forward, sample by sample: what it left for the backward, and its outputs."""
    _warn("forward", cls)
    calls: list[tuple[Context, Any]] = []
    known: dict[int, Any] = {}
    first_leaves: list[Any] = []

    def run_each() -> None:
        for index in range(level.batch_size):
            context, leaves = Context(needs), list(_sample(level, tuple(samples), index))
            outputs = call_forward(cls, context, unflatten(structure, leaves))
            calls.append((context, outputs))
            if index == 0:
                first_leaves.extend(leaves)  # kept, so that no other tensor gets the id of one
                known.update(zip(map(id, leaves), samples, strict=True))

    _C.run_below(level, run_each)

    def together(each: Sequence[Any]) -> Any:
        """What stands for one thing of each sample: an argument or output, a stack, or a list."""
        first = each[0]
        if id(first) in known and isinstance(first, Tensor):
            return known[id(first)]
        if isinstance(first, Tensor):
            known[id(first)] = _stacked(level, each)
            return known[id(first)]
        if _all_equal(each):
            return first
        index = level.wrap(_C.run_below(level, torch.arange, level.batch_size), 0)
        return _OfEach(types.SimpleNamespace(items=list(each)), index)

    def all_together(get: Callable[[Context], Sequence[Any]]) -> tuple[Any, ...]:
        columns = zip(*(get(context) for context, _ in calls), strict=True)
        return tuple(together(column) for column in columns)

    columns = zip(*(as_tuple(outputs) for _, outputs in calls), strict=True)
    outputs = tuple(together(column) for column in columns)
    merged = Context(needs)
    merged._for_backward = all_together(lambda context: context._for_backward)
    merged._for_forward = all_together(lambda context: context._for_forward)
    merged._dirty = all_together(lambda context: context._dirty)
    merged._non_differentiable = all_together(lambda context: context._non_differentiable)
    merged._materialize = calls[0][0]._materialize
    for name in calls[0][0].__dict__:
        setattr(merged, name, together([context.__dict__[name] for context, _ in calls]))
    if any(level.unwrap(tensor)[1] is None for tensor in merged._dirty):
        raise RuntimeError(
            f"functorch_ext.vmap: {cls.__name__} would write in place to a tensor that all samples "
            "share."
        )
    return merged, outputs if isinstance(calls[0][1], tuple) else outputs[0]


class _OfEach(NamedTuple):
    """What a forward left on ctx, where it differs between samples and is no tensor.

    ``index`` is a tensor of the samples' plane. It goes with the saved tensors wherever they go,
    and tells which sample is at hand.
    """

    values: types.SimpleNamespace  # its attribute items: a leaf of the tree that ctx is
    index: Tensor  # type: ignore[assignment]  # hides tuple.index


def differs_between_samples(context: Context) -> bool:
    """Did a forward leave something that is no tensor and differs between samples?"""
    return any(isinstance(value, _OfEach) for value in context.__dict__.values())


class _SampleContext:
    """The ctx as one sample sees it."""

    # The user's attributes go to __dict__, which holds nothing else.
    __slots__ = ("__dict__", "_ctx", "saved_tensors")

    def __init__(self, ctx: Any, saved: Any, level: _C.Level, index: int) -> None:
        self._ctx, self.saved_tensors = ctx, _sample(level, saved, index)
        for name, value in ctx.__dict__.items():
            setattr(self, name, _sample(level, value, index))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


def _sample(level: _C.Level, tree: Any, index: int) -> Any:
    """The sample at an index, of what holds tensors of the level."""
    if isinstance(tree, _OfEach):
        inner = _sample(level, tree.index, index)
        is_one = _C.describe(inner) is None
        return tree.values.items[int(inner)] if is_one else _OfEach(tree.values, inner)
    if isinstance(tree, Tensor):
        value, dim = level.unwrap(tree)
        return value if dim is None else value.select(dim, index)
    leaves, structure = flatten(tree)
    if structure.is_leaf():
        return tree
    return unflatten(structure, [_sample(level, leaf, index) for leaf in leaves])


def _stacked(level: _C.Level, each: Sequence[Tensor | None]) -> Tensor | None:
    """One thing of each sample as a tensor of the level; None stands for zeros."""
    present = [one for one in each if one is not None]
    if not present:
        return None
    if len(present) < len(each):
        zeros = _C.run_below(level, torch.zeros_like, present[0])
        present = [zeros if one is None else one for one in each]
    return level.wrap(_C.run_below(level, torch.stack, present), 0)


def _all_equal(each: Sequence[Any]) -> bool:
    try:
        return all(one is each[0] or bool(one == each[0]) for one in each)
    except Exception:  # things such as arrays have no single answer
        return False


def _once(cls: type, gradients: tuple[Any, ...], needed: tuple[Any, ...]) -> tuple[Any, ...]:
    """Gradients that raise if they are differentiated: of a loop, the graph is not known."""
    message = f"the backward of {cls.__name__} ran sample by sample and can't be differentiated"
    inputs = (*gradients, *needed)
    raiser = torch._C._functions.DelayedError(message, len(inputs))
    return tuple(raiser(*inputs)[: len(gradients)])


def _warn(what: str, cls: type) -> None:
    warn_of_loop(
        f"functorch_ext.vmap: the {what} of {cls.__name__} reads the memory of its tensors (as "
        ".numpy() does), so it ran in a loop over samples, which is a performance drop. Give the "
        "function a vmap staticmethod, or compute with operators of torch."
    )
