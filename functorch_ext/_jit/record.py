"""Recording what a function of tensors does as a graph, on tensors without values."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch._higher_order_ops.triton_kernel_wrap  # noqa: F401  (the tracer asks for it)
from torch import Tensor, fx
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode, PythonKeyTracer, make_fx

from functorch_ext._jit.without_dynamo import without_dynamo
from functorch_ext._releases.recording import decompositions_of


def record(func: Callable[..., Any], tensors: Sequence[Tensor], dynamic: bool) -> fx.GraphModule:
    """The graph that ``make_fx`` makes; tensors that aren't arguments may be real ones."""
    if dynamic:
        return make_fx(func, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*tensors)
    with without_dynamo(), _compiled_functions_inlined():
        return _record(func, tensors)


def _compiled_functions_inlined() -> contextlib.AbstractContextManager[Any]:
    """Runs what ``torch.compile`` has made as the function that it was made of, inside."""
    config: Any = sys.modules.get("torch._dynamo.config")
    if hasattr(config, "error_on_nested_fx_trace"):
        return config.patch(error_on_nested_fx_trace=False)
    return contextlib.nullcontext()


def _record(func: Callable[..., Any], tensors: Sequence[Tensor]) -> fx.GraphModule:
    mode = detect_fake_mode(tensors) or FakeTensorMode(
        allow_non_fake_inputs=True, static_shapes=True
    )
    tracer = PythonKeyTracer()
    # Control flow records its branches by the tracer of the function around them.
    maker: Any = proxy_tensor._MakefxTracer({}, "fake", True, False, False, False, True)
    recorder = ProxyTorchDispatchMode(tracer, "fake", **decompositions_of(maker))
    maker.fake_tensor_mode, maker.fx_tracer, maker.proxy_mode = mode, tracer, recorder
    values = [mode.from_tensor(each) for each in tensors]
    placeholders: Any = tuple(fx._symbolic_trace.PH for _ in values)
    with (
        mode,
        recorder,
        proxy_tensor.disable_autocast_cache(),
        proxy_tensor._set_make_fx_tracer(maker),
    ):
        named = proxy_tensor.fake_signature(func, len(values))
        wrapped = proxy_tensor.wrap_key(named, tuple(values), tracer, False)
        graph = tracer.trace(wrapped, concrete_args=placeholders)
    return fx.GraphModule(tracer.root, graph)
