"""Compiled kernels on disk, so that another process needs no compiler for the same graph.

A kernel is found by all that it was made from: the graph, its inputs, the settings, the processor
and the versions. Functions are always traced, so nothing rests on how Python spells them.
"""

import contextlib
import ctypes
import getpass
import hashlib
import json
import operator
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

# void inductor_entry_impl(AtenTensorOpaque**, AtenTensorOpaque**), as C++ spells it.
_ENTRY = "_Z19inductor_entry_implPP16AtenTensorOpaqueS1_"
_loaded: list[ctypes.CDLL] = []  # Kernels stay loaded.


def address_of(library: str) -> int:
    """The address of a kernel in the library that Inductor compiled, or 0."""
    loaded = ctypes.CDLL(library)
    function = getattr(loaded, _ENTRY, None)
    if function is None:
        return 0
    _loaded.append(loaded)
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def key_of(graph: fx.GraphModule, values: list[Tensor], settings: dict[str, Any]) -> str | None:
    """What the kernel of a graph is found by; None for a graph whose text doesn't say it all."""
    changed = _changed_settings()
    if changed is None:
        return None
    for node in graph.graph.nodes:
        if node.op == "call_function" and not _is_plain(node.target):
            return None
        if node.op in ("get_attr", "call_module", "call_method"):
            return None
    if not all(_is_fixed(value) for value in values):
        return None
    parts = [
        *_machine(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        sorted(settings.items()),
        changed,
        [(v.dtype, tuple(v.shape), v.stride(), v.device, v.is_conj(), v.is_neg()) for v in values],
        graph.code,
    ]
    return _digest(parts)


def _machine() -> list[Any]:
    return [
        "3",  # of this format, and of the passes that follow
        torch.__version__,
        torch.version.git_version,
        platform.python_version(),
        torch.backends.cpu.get_cpu_capability(),
        _processor(),
    ]


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def noted(fact: list[Any]) -> str | None:
    """What an earlier process, on such a machine, has noted of this; None if nothing."""
    try:
        return (_folder() / _digest([*_machine(), *fact])).read_text()
    except OSError:
        return None


def note(fact: list[Any], text: str = "") -> None:
    """Tells later processes."""
    with contextlib.suppress(OSError):
        _folder().mkdir(parents=True, exist_ok=True)
        (_folder() / _digest([*_machine(), *fact])).write_text(text)


def load(key: str) -> tuple[int, int] | None:
    """A kernel's address and its number of results, if it is on disk."""
    folder = _folder() / key
    try:
        outputs = json.loads((folder / "kernel.json").read_text())["outputs"]
        address = address_of(str(folder / "kernel.so"))
    except (OSError, ValueError, KeyError):
        return None
    return (address, outputs) if address else None


def store(key: str, library: str, outputs: int) -> None:
    """Keeps a kernel; where the disk doesn't take it, the next process compiles again."""
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_folder()) as made:
            shutil.copyfile(library, Path(made) / "kernel.so")
            (Path(made) / "kernel.json").write_text(json.dumps({"outputs": outputs}))
            os.rename(shutil.copytree(made, made + ".whole"), _folder() / key)
    except OSError:
        return


def _folder() -> Path:
    named = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    folder = Path(named or Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}")
    return folder / "functorch_ext"


def _changed_settings() -> list[tuple[str, str]] | None:
    """What of Inductor's configuration isn't the default; None if that forbids caches.

    To import the configuration takes as long as all else together, so it is only asked where the
    program has imported it.
    """
    found = [
        (name, value)
        for name, value in sorted(os.environ.items())
        if name.startswith("TORCHINDUCTOR_") or name in ("CXX", "CXXFLAGS", "CFLAGS")
    ]
    if ("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1") in found:
        return None
    config: Any = sys.modules.get("torch._inductor.config")
    if config is not None:
        if config.force_disable_caches or not config.fx_graph_cache:
            return None
        found += [
            (name, repr(getattr(config, name)))
            for name, entry in sorted(config._config.items())
            # Where the default is no value, the environment decides, which is looked at above.
            if type(entry.default) is not object and getattr(config, name) != entry.default
        ]
    return found


def _is_plain(target: Any) -> bool:
    return target is operator.getitem or (
        isinstance(target, torch._ops.OpOverload) and target.namespace in ("aten", "prims")
    )


def _is_fixed(value: Any) -> bool:
    return isinstance(value, Tensor) and all(
        type(size) is int for size in (*value.shape, *value.stride())
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line for line in lines if line.startswith("flags"))
    except (OSError, StopIteration):
        return platform.processor()
