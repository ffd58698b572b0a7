"""What the C++ compiler need not do again for each kernel, or in each process."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

from functorch_ext._jit import disk_cache, headers

# Kernels are in one file with what calls them, and include both. Inductor precompiles the first
# alone, so that each compilation reads the second anew, which takes half of its time.
_HEADER = "torch/csrc/inductor/cpp_wrapper/cpu.h"
_HEADERS = f"{_HEADER}>\n#include <torch/csrc/inductor/cpp_prefix.h"


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Inside, Inductor precompiles all headers, and trusts what it has found out of vectors."""
    from torch._inductor import codecache, config

    header_of: Any = codecache._get_cpp_wrapper_header

    def headers_of(*args: Any, **kwargs: Any) -> str:
        found = header_of(*args, **kwargs)
        return _HEADERS if found == _HEADER else found

    codecache._get_cpp_wrapper_header = headers_of
    known = config.cpp.vec_isa_ok is None and disk_cache.noted(_vectors_work()) is not None
    try:
        trusted = config.patch({"cpp.vec_isa_ok": True}) if known else contextlib.nullcontext()
        with trusted, headers.remembered():
            yield
    finally:
        codecache._get_cpp_wrapper_header = header_of
    if config.cpp.vec_isa_ok is None and not known and _all_work():
        disk_cache.note(_vectors_work())


def _vectors_work() -> list[Any]:
    """The note that this compiler makes code for all vectors of this processor that runs."""
    compilers = [shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")]
    stats = [os.stat(path) for path in compilers if path]
    return ["vectors", compilers, [(each.st_mtime, each.st_size) for each in stats]]


def _all_work() -> bool:
    """Did Inductor's test kernels run, in this process, for all that the processor has?"""
    from torch._inductor import cpu_vec_isa

    if not hasattr(cpu_vec_isa, "x86_isa_checker"):
        return False
    flags = cpu_vec_isa.x86_isa_checker()
    named = [
        each
        for each in cpu_vec_isa.supported_vec_isa_list
        if all(flag in flags for flag in str(each).split())
    ]
    return bool(named) and cpu_vec_isa.valid_vec_isa_list() == named
