"""Names of the vmaps that run on a thread, innermost last."""

import functools
import threading
from collections.abc import Callable, Hashable
from typing import Any

from functorch_ext import _C


class _Names(threading.local):
    running: tuple[tuple[Hashable, _C.Level], ...] = ()


_names = _Names()


def named(func: Callable[..., Any], axis_name: Hashable) -> Callable[..., Any]:
    """The function that a vmap of that name calls."""

    @functools.wraps(func)
    def inside(*args: Any, **kwargs: Any) -> Any:
        outer, level = _names.running, _C.running_level()
        assert level is not None
        _names.running = (*outer, (axis_name, level))
        try:
            return func(*args, **kwargs)
        finally:
            _names.running = outer

    return inside


def level_named(axis_name: Hashable) -> _C.Level:
    """The level of the innermost vmap of that name."""
    # A signal handler may have raised before an entry was taken off: those don't run.
    running = [(name, level) for name, level in _names.running if level.is_running]
    for name, level in reversed(running):
        if name == axis_name:
            return level
    known = ", ".join(repr(name) for name, _ in running) or "none"
    raise NameError(
        f"functorch_ext: no vmap with axis_name={axis_name!r} is around; those that are: {known}. "
        "Give its name to the vmap: vmap(f, axis_name=...)."
    )
