"""``jit`` as the program sees it."""

import functools
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from functorch_ext import _C
from functorch_ext._jit.lowered import Lowered
from functorch_ext._jit.progress import Progress
from functorch_ext._jit.signature import Arguments, Statics, statics_of
from functorch_ext._jit.without_dynamo import without_dynamo
from functorch_ext._pytree import leaves_of

_log = logging.getLogger("functorch_ext.jit")

_BACKENDS = ("inductor", "graph")

# Calls of more sizes than this are looked up in Python, where sizes are symbols.
_MOST_SIZES = 64


def make(
    func: Callable[..., Any],
    static_argnums: Any,
    static_argnames: Any,
    dynamic: bool,
    backend: str,
) -> "Jitted":
    """The jitted function, after a look at the options."""
    if not callable(func):
        raise TypeError(f"functorch_ext.jit: the function must be callable, but got {func!r}.")
    if backend not in _BACKENDS:
        raise ValueError(
            f"functorch_ext.jit: backend must be 'inductor' or 'graph', but got {backend!r}."
        )
    return Jitted(func, statics_of(func, static_argnums, static_argnames), dynamic, backend)


class Jitted:
    """A function that is traced and compiled at its first call of each signature.

    Later calls are found in C++ (`_C.JittedCalls`), which borrows what is kept here. Arguments of
    other kinds than it knows, and new sizes where sizes are symbols, are looked up in Python.
    """

    def __init__(
        self, func: Callable[..., Any], statics: Statics, dynamic: bool, backend: str
    ) -> None:
        functools.update_wrapper(self, func)
        self._func, self._statics, self._dynamic, self._backend = func, statics, dynamic, backend
        self._calls = _C.JittedCalls(func, sorted(statics.numbers), sorted(statics.names))
        self._cache: dict[Any, list[Any]] = {}
        self._compiled: list[Any] = []
        self._lock = threading.RLock()
        self._sizes_left = _MOST_SIZES

    def __reduce__(self) -> Any:
        name = getattr(self._func, "__qualname__", "")
        if _at(self.__module__, name) is self:  # made by a decorator
            return name
        numbers, names = tuple(self._statics.numbers), tuple(self._statics.names)
        return make, (self._func, numbers, names, self._dynamic, self._backend)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_compiling():
            found = self._calls.call(args, kwargs)
            if found is not NotImplemented:
                return found
        if _is_seen_by_others():
            return self._func(*args, **kwargs)
        arguments = self._arguments(args, kwargs)
        compiled = self._find(arguments, bool(kwargs))
        if torch._C._len_torch_function_stack() == 0 and self._is_remembered(compiled):
            self._remember(args, kwargs, compiled)
        tensors = arguments.tensors
        if compiled.written and compiled.writes_to_shared_memory(tensors):
            return self._func(*args, **kwargs)
        if torch._C._is_any_autocast_enabled():
            return _without_autocast(compiled, tensors)
        return compiled(tensors)

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        if self._statics:
            args, kwargs = self._statics.marked(args, kwargs)
        return Arguments(args, kwargs)

    def _is_remembered(self, compiled: Any) -> bool:
        """Shall C++ find it, which knows each of its sizes apart?"""
        if not self._dynamic:
            return True
        if compiled.differentiable or self._sizes_left == 0:
            return False
        self._sizes_left -= 1
        return True

    def _remember(self, args: tuple[Any, ...], kwargs: dict[str, Any], compiled: Any) -> None:
        """Lets C++ find what was compiled for this call."""
        numbered = self._calls.numbered(args, kwargs)
        if numbered is not None:
            # C++ takes dicts in their own order, pytrees sort their keys.
            order = leaves_of(numbered if kwargs else numbered[0])
            self._calls.add(args, kwargs, [n for n in order if n is not None], compiled)

    def _find(self, arguments: Arguments, has_kwargs: bool) -> Any:
        key = arguments.key(self._dynamic)
        try:
            known = self._cache.get(key, ())
        except TypeError:
            kinds = sorted({kind.__name__ for kind, _ in arguments.rest})
            raise TypeError(
                "functorch_ext.jit: arguments that aren't tensors must be hashable, but there is "
                f"one that isn't, among those of the types {kinds}. Register it as a container, or "
                "pass its tensors."
            ) from None
        for compiled in known:
            if compiled.fits(arguments.tensors):
                return compiled
        with self._lock, without_dynamo():
            compiled = self._compile(self._trace(arguments, has_kwargs), arguments)
            fitting = [each for each in known if each.guards is not None]
            self._cache[key] = [compiled, *fitting]
            self._compiled.append(compiled)  # C++ borrows it
        return compiled

    def _trace(self, arguments: Arguments, has_kwargs: bool) -> Any:
        from functorch_ext._jit.trace import trace

        return trace(self._func, arguments, has_kwargs, self._dynamic)

    def _compile(self, traced: Any, arguments: Arguments) -> Any:
        from functorch_ext._jit import graph, inductor
        from functorch_ext._jit.compiled import Compiled

        backend = {"inductor": inductor, "graph": graph}[self._backend].compile_graph
        name = getattr(self._func, "__name__", type(self._func).__name__)
        with Progress(name) as progress:
            compiled = Compiled(traced, arguments.tensors, backend)
        _log.info("compiled %s in %.1f s", name, progress.seconds)
        return compiled

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """What a call with these arguments is compiled from."""
        arguments = self._arguments(args, kwargs)
        return Lowered(self, arguments, self._trace(arguments, bool(kwargs)))


def _is_seen_by_others() -> bool:
    """Do transforms or tracers follow the operators? They have to see those of the function."""
    return (
        torch.compiler.is_compiling()  # first: Dynamo knows nothing of the others
        or _C.transform_runs()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.maybe_current_level() is not None
        or forward_ad._current_level >= 0  # arguments may have tangents
    )


def _at(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _without_autocast(compiled: Any, tensors: Any) -> Any:
    # The graph has the casts in it.
    devices = {each.device.type for each in tensors} | {"cpu"}
    enabled = [(d, torch.is_autocast_enabled(d)) for d in devices]
    for device, _ in enabled:
        torch.set_autocast_enabled(device, False)
    try:
        return compiled(tensors)
    finally:
        for device, was in enabled:
            torch.set_autocast_enabled(device, was)
