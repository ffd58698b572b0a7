"""The backend with a compiler: PyTorch's Inductor, without Dynamo."""

import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, detect_fake_mode, tracing

from functorch_ext import _C
from functorch_ext._jit import disk_cache, toolchain
from functorch_ext._jit.passes.expanded import clone_expanded
from functorch_ext._jit.passes.gathered import keep_gathered

# A value that is used more often than this is kept in memory where Inductor would compute it again
# at each use, which takes exponential time for chains such as x = sin(x) * x.
_MOST_INLINED = 5

_SETTINGS = {
    "cpp_wrapper": True,
    "realize_opcount_threshold": _MOST_INLINED,
    "fallback_random": True,
}


class Kernel:
    """A graph as one function in machine code, which takes tensors and returns new ones."""

    def __init__(self, address: int, outputs: int, written: list[int]) -> None:
        self.address, self.outputs, self.written = address, outputs, written

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        return _C.run_kernel(self.address, self.outputs, tensors, self.written)


def compile_graph(
    graph: fx.GraphModule, values: list[Tensor], written: list[int]
) -> Callable[[list[Tensor]], Any]:
    """The graph as a function of a list of tensors, in machine code: a Kernel where possible."""
    clone_expanded(graph.graph)
    graph.recompile()
    key = disk_cache.key_of(graph, values, _SETTINGS)
    if key is not None and (found := disk_cache.load(key)) is not None:
        return Kernel(*found, written)
    function, library, outputs = _compile(graph, values)
    if library is None or not (address := disk_cache.address_of(library)):
        return lambda tensors: function(*tensors)
    if key is not None:
        disk_cache.store(key, library, outputs)
    return Kernel(address, outputs, written)


def _compile(graph: fx.GraphModule, values: list[Tensor]) -> tuple[Any, str | None, int]:
    """Inductor's function; and the library whose function computes the same, with its results."""
    from torch._functorch import config as aot_config
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    _check_compiler(config.cpp.cxx)
    keep_gathered(graph.graph)
    graph.recompile()
    parts = []

    def compile_part(*args: Any, **kwargs: Any) -> Any:
        parts.append(compile_fx_inner(*args, **kwargs))
        return parts[-1]

    mode = detect_fake_mode(values)
    if mode is not None and mode.shape_env is None:
        mode.shape_env = ShapeEnv()
    context = TracingContext(mode)
    # With AOTAutograd's cache, the parts aren't seen; the kernels have a cache of their own.
    without_cache = aot_config.patch(enable_autograd_cache=False)
    try:
        with (
            torch.no_grad(),
            config.patch(_SETTINGS),
            without_cache,
            toolchain.prepared(),
            tracing(context),
        ):
            function: Any = compile_fx(graph, list(values), inner_compile=compile_part)
    except InvalidCxxCompiler as error:
        raise _without_compiler() from error
    facts = context.fw_metadata
    if len(parts) != 1 or facts is None or not _needs_nothing_else(facts):
        return function, None, 0
    return function, _library_of(parts[0]), len(facts.output_info)


def _needs_nothing_else(facts: Any) -> bool:
    """Does the compiled graph alone, without what AOTAutograd does around it, do all?"""
    new = ("non_alias", "unsafe_view_alias")
    return (
        facts.num_mutated_inp_runtime_indices == 0
        and facts.num_intermediate_bases == 0
        and not facts.tokens
        and not facts.is_rng_op_functionalized
        and all(info.output_type.name in new for info in facts.output_info)
    )


def _library_of(part: Any) -> str | None:
    """The library of a compiled graph, if that is all that a call of it needs."""
    if getattr(part, "constants", None) or "custom_op_wrapper" in getattr(part, "source_code", ""):
        return None
    names = getattr(getattr(part, "current_callable", None), "__globals__", {})
    module = getattr(names.get("inductor_entry"), "__self__", None)
    return getattr(module, "__file__", None)


def _check_compiler(configured: Any) -> None:
    candidates = configured if isinstance(configured, (list, tuple)) else [configured]
    if not any(shutil.which(name) for name in (*candidates, "g++", "clang++") if name):
        raise _without_compiler()


def _without_compiler() -> RuntimeError:
    return RuntimeError(
        "functorch_ext.jit: backend='inductor' needs a C++ compiler (g++ or clang++), and none was "
        "found on this machine. Install one, name it in the environment variable CXX, or use "
        "backend='graph', which runs the optimized graph without compiling it."
    )
