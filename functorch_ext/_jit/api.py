"""``jit`` as the program sees it."""

import collections
import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from functorch_ext import _C
from functorch_ext._jit.signature import Arguments, static_marker

_log = logging.getLogger("functorch_ext.jit")

_BACKENDS = ("inductor", "graph")


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
    return Jitted(func, static_marker(func, static_argnums, static_argnames), dynamic, backend)


class Jitted:
    """A function that is traced and compiled at its first call of each signature."""

    def __init__(self, func: Callable[..., Any], mark: Any, dynamic: bool, backend: str) -> None:
        functools.update_wrapper(self, func)
        self._func, self._mark, self._dynamic, self._backend = func, mark, dynamic, backend
        self._cache: dict[Any, list[Any]] = {}
        self._lock = threading.RLock()

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _is_seen_by_others():
            return self._func(*args, **kwargs)
        arguments = self._arguments(args, kwargs)
        compiled = self._find(arguments, bool(kwargs))
        tensors = arguments.tensors
        if compiled.written and compiled.writes_to_shared_memory(tensors):
            return self._func(*args, **kwargs)
        if torch._C._is_any_autocast_enabled():
            return _without_autocast(compiled, tensors)
        return compiled(tensors)

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        if self._mark is not None:
            args, kwargs = self._mark(args, kwargs)
        return Arguments(args, kwargs)

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
        with self._lock:
            compiled = self._compile(self._trace(arguments, has_kwargs), arguments)
            fitting = [each for each in known if each.guards is not None]
            self._cache[key] = [compiled, *fitting]
        return compiled

    def _trace(self, arguments: Arguments, has_kwargs: bool) -> Any:
        from functorch_ext._jit.trace import trace

        return trace(self._func, arguments, has_kwargs, self._dynamic)

    def _compile(self, traced: Any, arguments: Arguments) -> Any:
        from functorch_ext._jit import graph, inductor
        from functorch_ext._jit.compiled import Compiled

        backend = {"inductor": inductor, "graph": graph}[self._backend].compile_graph
        start = time.perf_counter()
        compiled = Compiled(traced, arguments.tensors, backend)
        name = getattr(self._func, "__name__", type(self._func).__name__)
        _log.info("compiled %s in %.1f s", name, time.perf_counter() - start)
        return compiled

    def lower(self, *args: Any, **kwargs: Any) -> "Lowered":
        """What a call with these arguments is compiled from."""
        arguments = self._arguments(args, kwargs)
        return Lowered(self, arguments, self._trace(arguments, bool(kwargs)))


class Lowered:
    """A traced function: its graph, and the way to the compiled one."""

    def __init__(self, jitted: Jitted, arguments: Arguments, traced: Any) -> None:
        from functorch_ext._jit.passes import optimize

        self._jitted, self._arguments, self._traced = jitted, arguments, traced
        self.graph = optimize(traced.graph)

    def as_text(self) -> str:
        """The graph as Python code: inputs are arguments, closed-over tensors, cotangents."""
        return self.graph.code.strip()

    def operators(self) -> dict[str, int]:
        """How often each operator is called."""
        nodes = self.graph.graph.nodes
        return dict(collections.Counter(str(n.target) for n in nodes if n.op == "call_function"))

    def compile(self) -> Callable[..., Any]:
        """The compiled function, for arguments of the same signature."""
        compiled = self._jitted._compile(self._traced, self._arguments)
        key = self._arguments.key(self._jitted._dynamic)

        @functools.wraps(self._jitted._func)
        def call(*args: Any, **kwargs: Any) -> Any:
            arguments = self._jitted._arguments(args, kwargs)
            fits = arguments.key(self._jitted._dynamic) == key
            if not fits or not compiled.fits(arguments.tensors):
                raise TypeError(
                    "functorch_ext.jit: a function that was compiled for one signature was called "
                    "with arguments of another: expected tensors "
                    f"{[(tuple(t.shape), t.dtype) for t in self._arguments.tensors]}, but got "
                    f"{[(tuple(t.shape), t.dtype) for t in arguments.tensors]}."
                )
            return compiled(arguments.tensors)

        return call


def _is_seen_by_others() -> bool:
    """Do transforms or tracers follow the operators? They have to see those of the function."""
    return (
        torch.compiler.is_compiling()  # first: Dynamo knows nothing of the others
        or _C.transform_runs()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.maybe_current_level() is not None
    )


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
