"""Names of the vmaps that run on a thread, innermost last."""

import functools
import sys
import threading
from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from functorch_ext import _C
from functorch_ext._pytree import leaves_of


class _Names(threading.local):
    running: tuple[tuple[Hashable, _C.Level, Any], ...] = ()


_names = _Names()


def named(func: Callable[..., Any], axis_name: Hashable) -> Callable[..., Any]:
    """The function that a vmap of that name calls."""

    @functools.wraps(func)
    def inside(*args: Any, **kwargs: Any) -> Any:
        outer, level = _names.running, _C.running_level()
        assert level is not None
        _names.running = (*outer, (axis_name, level, _mesh_of(args, kwargs)))
        try:
            return func(*args, **kwargs)
        finally:
            _names.running = outer

    return inside


def _mesh_of(args: Any, kwargs: Any) -> Any:
    """The mesh of processes over which the samples are sharded, if they are DTensors."""
    distributed: Any = sys.modules.get("torch.distributed.tensor")
    if distributed is None:  # it takes long to import
        return None
    tensors = (leaf for leaf in leaves_of((args, kwargs)) if isinstance(leaf, Tensor))
    below = map(_C.below_all_levels, tensors)
    return next((x.device_mesh for x in below if isinstance(x, distributed.DTensor)), None)


def level_named(axis_name: Hashable) -> _C.Level:
    """The level of the innermost vmap of that name."""
    return _running(axis_name)[0]


def mesh_named(axis_name: Hashable) -> Any:
    """The mesh of processes of its samples; ``None`` if they aren't sharded."""
    return _running(axis_name)[1]


def _running(axis_name: Hashable) -> tuple[_C.Level, Any]:
    # A signal handler may have raised before an entry was taken off: those don't run.
    for name, level, mesh in reversed(_names.running):
        if name == axis_name and level.is_running:
            return level, mesh
    running = [name for name, level, _ in _names.running if level.is_running]
    known = ", ".join(map(repr, running)) or "none"
    raise NameError(
        f"functorch_ext: no vmap with axis_name={axis_name!r} is around; those that are: {known}. "
        "Give its name to the vmap: vmap(f, axis_name=...)."
    )
