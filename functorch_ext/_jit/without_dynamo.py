"""Tracing without Dynamo, which takes longer to import than most functions to trace.

PyTorch's own code that traces imports ``torch._dynamo`` and ``torch._inductor`` for a few names:
settings, kinds of sources that tensors of fixed sizes don't have, and to be skipped by Dynamo. As
long as nobody has imported them, settings are their defaults and there is nothing to be skipped
by, so stand-ins answer. Only modules of PyTorch that trace meet them. Whoever else imports Dynamo
gets it, and so does whoever asks a stand-in for more.
"""

import builtins
import contextlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

_NAMES = ("torch._dynamo", "torch._inductor")
# With these in the environment, settings may be others.
_VARIABLES = ("TORCHDYNAMO_", "TORCHINDUCTOR_EMULATE", "TORCH_FAKE_TENSOR_", "TORCH_BISECT_")
_TRACING = (
    "torch._compile",
    "torch._subclasses.fake_tensor",
    "torch._subclasses.meta_utils",
    "torch.fx.experimental.proxy_tensor",
)


class _StandIn(ModuleType):
    """A module that knows some names, and imports the one it stands for when asked for others."""

    def __init__(self, name: str, **known: Any) -> None:
        super().__init__(name)
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(importlib.import_module(self.__name__), name, value)


class _Source:
    """Where a tensor comes from; nobody asks."""

    def __init__(self, name: str) -> None:
        self.name = name


class _RandomValueSource:
    """A kind that no source is of."""


class _NothingToBisect:
    @staticmethod
    def disable_subsystem(*args: Any) -> bool:
        return False


def _disable(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[..., Any]:
    _skipped.append(function)  # forgets this later, for Dynamo to be told when it is there
    return function


_CONFIG = _StandIn(
    "torch._dynamo.config",
    fake_tensor_cache_enabled=True,
    fake_tensor_cache_crosscheck_enabled=False,
    _custom_ops_profile=None,
)
_SOURCE = _StandIn(
    "torch._dynamo.source", ConstantSource=_Source, RandomValueSource=_RandomValueSource
)
_DYNAMO = _StandIn("torch._dynamo", config=_CONFIG, source=_SOURCE, disable=_disable)
_INDUCTOR = _StandIn(
    "torch._inductor",
    config=_StandIn("torch._inductor.config", emulate_precision_casts=False),
)
_BISECTOR = _StandIn("torch._inductor.compiler_bisector", CompilerBisector=_NothingToBisect)

# By what is imported, and whether names of it are.
_IMPORTS: dict[tuple[str, bool], ModuleType] = {
    ("torch._dynamo", False): torch,
    ("torch._dynamo.config", False): torch,
    ("torch._dynamo.source", True): _SOURCE,
    ("torch._inductor", True): _INDUCTOR,
    ("torch._inductor.compiler_bisector", True): _BISECTOR,
}

_lock = threading.RLock()
_users = 0
_skipped: list[Any] = []
_import = builtins.__import__


@contextlib.contextmanager
def without_dynamo() -> Iterator[None]:
    """Leaves Dynamo alone inside, if nobody has imported it."""
    global _users, _import
    with _lock:
        _users += 1
        if _users == 1 and _is_possible():
            vars(torch)["_dynamo"] = _DYNAMO
            sys.meta_path.insert(0, _FINDER)
            _import, builtins.__import__ = builtins.__import__, _import_stand_in
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _end()


def _is_possible() -> bool:
    return not any(name in sys.modules for name in _NAMES) and not any(
        name.startswith(_VARIABLES) for name in os.environ
    )


def _end() -> None:
    if builtins.__import__ is _import_stand_in:
        builtins.__import__ = _import
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
    if vars(torch).get("_dynamo") is _DYNAMO:
        del vars(torch)["_dynamo"]
    while _skipped:
        vars(_skipped.pop()).pop("__dynamo_disable", None)


def _import_stand_in(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> Any:
    if name.startswith(_NAMES) and globals is not None and globals.get("__name__") in _TRACING:
        found = _IMPORTS.get((name, bool(fromlist)))
        if found is not None and vars(torch).get("_dynamo") is _DYNAMO:
            return found
    return _import(name, globals, locals, fromlist, level)


class _Finder:
    """Of the real ones: they are imported outside of the modes that trace."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _NAMES:
            return None
        _end()
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        run = loader.exec_module

        def run_outside(module: ModuleType) -> None:
            with _disable_current_modes():
                run(module)

        loader.exec_module = run_outside
        return spec


_FINDER: Any = _Finder()
