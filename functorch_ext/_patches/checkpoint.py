"""``torch.utils.checkpoint`` and hooks of saved tensors, on the tensors of a ``vmap``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import checkpoint

from functorch_ext import _C, _patches
from functorch_ext._control_flow.branch import given_to_branch
from functorch_ext._releases.checkpoint import (
    GENERATOR,
    in_place_of,
    keep_inputs_untransformed,
    preparing,
)


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


def _install_saved_tensors_hooks() -> None:
    """Hooks work on the plane of the tensor that they get.

    PyTorch keeps what the tensor is to autograd of that plane. The planes below are kept here.
    """

    def hooks(self: saved_tensors_hooks) -> tuple[Callable[..., Any], Callable[..., Any]]:
        pack, unpack = self.pack_hook, self.unpack_hook

        def pack_on_plane(tensor: torch.Tensor) -> Any:
            packed = _C.call_outside_rules(pack, tensor)
            if _C.describe(tensor) is None:
                return packed
            return _Packed(packed, _C.SavedPlanes(tensor))

        def unpack_on_plane(packed: Any) -> torch.Tensor:
            if isinstance(packed, _Packed):
                return packed.planes.restore(unpack(packed.packed))
            return unpack(packed)

        return in_place_of(pack, pack_on_plane), unpack_on_plane

    push = torch._C._autograd._push_saved_tensors_default_hooks
    pop = torch._C._autograd._pop_saved_tensors_default_hooks
    why = "what packs a tensor of a vmap is differentiated on the planes below"
    for name, method in zip(("__enter__", "__exit__"), _C.context_methods(hooks, push, pop)):
        cost = "what packs is wrapped: a transform may start later"
        _patches.replace(saved_tensors_hooks, name, method, why, cost)


def _install_recomputation() -> None:
    """A checkpoint's function is computed again on the plane that it was computed on.

    The backward pass that asks for it may run after the vmap has returned, or inside another one.
    """
    module: Any = checkpoint

    def prepare(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        level = _C.running_level()

        def again(*args: Any, **kwargs: Any) -> Any:
            if level is None:
                return _C.run_below_all(function, *args, **kwargs)
            return _C.run_again(level, function, *args, **kwargs)

        return again, *given_to_branch((args, kwargs))

    _patches.replace(
        module,
        GENERATOR,
        preparing(getattr(module, GENERATOR), prepare),
        "it is computed again on the plane that it was computed on",
        "the function is called below all levels: a transform may run by then",
    )


def _install_reentrant() -> None:
    """Inside our transforms ``use_reentrant=True`` becomes the other variant.

    That one gives the same numbers. The reentrant one works with ``.backward()`` alone.
    """
    plain = checkpoint.CheckpointFunction.apply
    unchanged = checkpoint.checkpoint

    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        if not _C.transform_runs():
            return plain(function, preserve_rng_state, *args)
        return unchanged(
            function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state
        )

    _patches.replace(
        checkpoint.CheckpointFunction,
        "apply",
        staticmethod(apply),
        "use_reentrant=True becomes the other variant inside transforms",
    )
