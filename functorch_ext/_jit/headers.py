"""Finding the headers that an earlier process has precompiled.

Inductor knows them by a hash of all that they include, and lets the compiler's preprocessor write
it down in each process, which takes as long as compiling a small kernel. Here the files that are
included are noted once, with their sizes and times, and those are compared.
"""

import contextlib
import functools
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from functorch_ext._jit import disk_cache

_PRECOMPILED = (".gch", ".pch")  # what compilers add to the name


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Inside, Inductor finds precompiled headers by the files that they were made of."""
    from torch._inductor import codecache

    module: Any = codecache
    precompile = module._precompile_header
    module._precompile_header = functools.partial(_once, precompile)
    try:
        yield
    finally:
        module._precompile_header = precompile


def _found_or_made(
    precompile: Callable[..., str], header: str, command_line: str, **options: Any
) -> str:
    fact = ["header", header, command_line]
    noted = disk_cache.noted(fact)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(noted or "{}")
        if all(_stamp(path) == stamp for path, stamp in known["files"].items()):
            return known["header"]
    path = precompile(header, command_line, **options)
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        files = [*_included(header, options), *_compiled_from(path)]
        stamps = {each: _stamp(each) for each in files}
        disk_cache.note(fact, json.dumps({"header": path, "files": stamps}))
    return path


_once = functools.cache(_found_or_made)  # in a process, as Inductor's own function


def _stamp(path: str) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]


def _compiled_from(header: str) -> list[str]:
    compiled = [header + suffix for suffix in _PRECOMPILED if os.path.exists(header + suffix)]
    if not compiled:
        raise OSError(f"{header} isn't compiled")
    return [header, *compiled]


def _included(header: str, options: dict[str, Any]) -> list[str]:
    """The compiler, and the files that it reads for the header."""
    from torch._inductor.cpp_builder import CppBuilder, CppTorchDeviceOptions

    options = {name: value for name, value in options.items() if name != "extra_flags"}
    builder = CppBuilder("header", "-", CppTorchDeviceOptions(**options, preprocessing=True))
    command = shlex.split(builder.get_command_line())
    kept = [each for each in command if each not in ("-E", "-P", "-")]
    del kept[kept.index("-o") : kept.index("-o") + 2]
    done = subprocess.run(
        [*kept, "-x", "c++", "-M", "-"],
        input=f"#include <{header}>\n",
        capture_output=True,
        text=True,
        check=True,
    )
    compiler = os.path.realpath(shutil.which(kept[0]) or kept[0])
    return [compiler, *shlex.split(done.stdout.replace("\\\n", " "))[1:]]
