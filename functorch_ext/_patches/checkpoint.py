"""``torch.utils.checkpoint`` and hooks of saved tensors, on the tensors of a ``vmap``."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import checkpoint

from functorch_ext import _C, _patches
from functorch_ext._calling_again import with_state_of_running_calls, with_tangents_of
from functorch_ext._releases.checkpoint import GENERATOR, keep_inputs_untransformed, preparing
from functorch_ext._stand_ins import given_here


def install() -> None:
    """Teaches checkpoints and hooks of saved tensors about the engine's planes."""
    _install_saved_tensors_hooks()
    _install_recomputation()
    _install_reentrant()
    keep_inputs_untransformed(_patches.replace)


class _Packed(NamedTuple):
    """What a hook has made of a tensor of a level."""

    packed: Any
    planes: _C.SavedPlanes


class _PackOnPlane:
    """Packs on the plane of the tensor that it gets.

    PyTorch keeps what the tensor is to autograd of that plane. The planes below are kept here.
    """

    def __init__(self, pack: Callable[[torch.Tensor], Any]) -> None:
        self.pack = pack

    def __call__(self, tensor: torch.Tensor) -> Any:
        packed = _C.call_outside_rules(self.pack, tensor)
        if _C.describe(tensor) is None:
            return packed
        return _Packed(packed, _C.SavedPlanes(tensor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pack, name)  # by which a checkpoint knows its own hooks


def _on_planes(pack: Callable[..., Any], unpack: Callable[..., Any]) -> tuple[Any, Any]:
    """A pair of hooks, as one that works on the planes of the tensors that it gets."""
    if isinstance(pack, _PackOnPlane):
        return pack, unpack

    def unpack_on_plane(packed: Any) -> torch.Tensor:
        if isinstance(packed, _Packed):
            return packed.planes.restore(unpack(packed.packed))
        return unpack(packed)

    return _PackOnPlane(pack), unpack_on_plane


def _install_saved_tensors_hooks() -> None:
    """Those set while transforms run are adapted at once, others when a transform begins."""

    def hooks(self: saved_tensors_hooks) -> tuple[Any, Any]:
        return _on_planes(self.pack_hook, self.unpack_hook)

    push = torch._C._autograd._push_saved_tensors_default_hooks
    pop = torch._C._autograd._pop_saved_tensors_default_hooks
    why = "what packs a tensor of a vmap is differentiated on the planes below"
    for name, method in zip(("__enter__", "__exit__"), _C.context_methods(hooks, push, pop)):
        _patches.replace(saved_tensors_hooks, name, method, why)
    _C.adapt_saved_tensors_hooks(_on_planes)


def _install_recomputation() -> None:
    """A checkpoint's function is computed again on the plane that it was computed on.

    The backward pass that asks for it may run after the vmap has returned, or inside another one.
    Modules that a functional_call runs get its tensors again.
    """
    module: Any = checkpoint

    def prepare(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        function = with_state_of_running_calls(function)
        if _C.is_idle():
            again = _C.switch(function, functools.partial(_C.run_below_all, function))
            return again, args, kwargs
        function = with_tangents_of(function, args, kwargs)
        level = _C.running_level()
        run = _C.run_below_all if level is None else functools.partial(_C.run_again, level)
        return functools.partial(run, function), *given_here((args, kwargs))

    _patches.replace(
        module,
        GENERATOR,
        preparing(getattr(module, GENERATOR), prepare),
        "it is computed again on the plane that it was computed on",
        "the function is wrapped in C: a transform may run when it is computed again",
    )


def _install_reentrant() -> None:
    """Inside our transforms ``use_reentrant=True`` becomes the other variant.

    That one gives the same numbers. The reentrant one works with ``.backward()`` alone.
    """
    plain = checkpoint.CheckpointFunction.apply
    unchanged = checkpoint.checkpoint

    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        if not _C.transform_runs():
            again = with_state_of_running_calls(function)
            return plain(again, preserve_rng_state, *args)
        return unchanged(
            function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state
        )

    _patches.replace(
        checkpoint.CheckpointFunction,
        "apply",
        staticmethod(apply),
        "use_reentrant=True becomes the other variant inside transforms",
        "a functional_call may run: it asks for the list of them",
    )
