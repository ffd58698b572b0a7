"""The backend with a compiler: PyTorch's Inductor, without Dynamo."""

import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from functorch_ext._jit.passes.expanded import clone_expanded

# A value that is used more often than this is kept in memory where Inductor would compute it again
# at each use, which takes exponential time for chains such as x = sin(x) * x.
_MOST_INLINED = 5


def compile_graph(graph: fx.GraphModule, values: list[Tensor]) -> Callable[[list[Tensor]], Any]:
    """The graph as a function of a list of tensors, in machine code."""
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.exc import InvalidCxxCompiler

    _check_compiler(config.cpp.cxx)
    clone_expanded(graph.graph)
    graph.recompile()
    settings = {
        "cpp_wrapper": True,
        "realize_opcount_threshold": _MOST_INLINED,
        "fallback_random": True,
    }
    try:
        with torch.no_grad(), config.patch(settings):
            function: Any = compile_fx(graph, list(values))
    except InvalidCxxCompiler as error:
        raise _without_compiler() from error
    return lambda tensors: function(*tensors)


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
