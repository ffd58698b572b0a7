"""Recording: what ``make_fx`` sees of a transform is plain operators on plain tensors.

``make_fx`` and fake tensors get operators from below the transforms, after the kernels of wrappers
and autograd. Their own code runs operators too (decompositions, metadata of fake tensors). That is
no part of the program, so it runs outside of all levels.

With ``pre_dispatch=True`` operators would be recorded ahead of those kernels. A transform can't be
recorded there: its backward passes and batching rules are what comes after. So for as long as one
runs, the mode that records changes places.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, _ops
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensorMode
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode

from functorch_ext import _C, _patches
from functorch_ext._releases.recording import decompositions_of, undecomposed

_aten = torch.ops.aten

# Questions that autograd asks about a tangent; the answers aren't tensors.
_QUESTIONS = (_aten.is_same_size.default, _aten._has_same_storage_numel.default)

# What must return another tensor than its argument: autograd gives the two different derivatives.
_ALIASES = (_aten.alias.default, _aten.detach.default)

# The key of zeros without memory.
_ZEROS = torch._C.DispatchKey.ZeroTensor


def install() -> None:
    """Runs the modes that trace, and their decompositions, outside of all levels."""
    _patches.replace(
        FunctionalTensorMode,
        "__torch_dispatch__",
        _telling_aliases(FunctionalTensorMode.__torch_dispatch__),
        "graphs would be cut where autograd saves a tensor",
    )
    for mode in (FakeTensorMode, ProxyTorchDispatchMode):
        _patches.replace(
            mode,
            "__torch_dispatch__",
            _outside_levels(mode.__torch_dispatch__),
            "tensors that PyTorch makes to trace a program would belong to a vmap",
        )


class _Inside(threading.local):
    unrecorded = False


_inside = _Inside()


def _telling_aliases(dispatch: Callable[..., Any]) -> Callable[..., Any]:
    """Of a mode that calls operators anew: the modes below can't tell whose they were."""

    @functools.wraps(dispatch)
    def dispatch_telling(
        self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is not _aten.detach.default or not _C.transform_runs() or _is_of_program():
            return dispatch(self, func, types, args, kwargs)
        _inside.unrecorded = True
        try:
            return dispatch(self, func, types, args, kwargs)
        finally:
            _inside.unrecorded = False

    return dispatch_telling


def _outside_levels(dispatch: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(dispatch)
    def dispatch_outside(
        self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if not _C.transform_runs():
            return dispatch(self, func, types, args, kwargs)
        if type(self) is ProxyTorchDispatchMode:
            if func in _QUESTIONS:
                return func(*args, **(kwargs or {}))
            if func in _ALIASES:
                if func is _aten.alias.default or _inside.unrecorded or not _is_of_program():
                    slot = proxy_tensor.get_proxy_slot(args[0], self.tracer, None)
                    if slot is not None:
                        return _same_node(self.tracer, slot, func(*args))
                with undecomposed(self):  # a decomposition may return the argument itself
                    return dispatch(self, func, types, args, kwargs)
            if func is _aten._efficientzerotensor.default:
                return _C.run_outside_levels(_zeros, self, dispatch, func, types, args, kwargs)
        elif any(_is_without_memory(arg) for arg in args):
            return _C.run_outside_levels(_uncached, self, dispatch, func, types, args, kwargs)
        return _C.run_outside_levels(dispatch, self, func, types, args, kwargs)

    return dispatch_outside


def _is_of_program() -> bool:
    """Is this ``detach`` the program's, rather than autograd's when it saves a tensor, or ours?

    What is called as an operator has been through the kernels of autograd, which shut them off.
    """
    return torch._C._dispatch_tls_is_dispatch_key_excluded(torch._C.DispatchKey.ADInplaceOrView)


def _same_node(tracer: Any, slot: Any, alias: Tensor) -> Tensor:
    """The alias stands for what the graph has already: the graph has its derivatives, too."""
    proxy_tensor.track_tensor(alias, slot.proxy, constant=slot.constant, tracer=tracer)
    return alias


def _zeros(
    mode: Any, dispatch: Callable[..., Any], func: Any, types: Any, args: Any, kwargs: Any
) -> Tensor:
    """Zeros without memory, recorded as zeros that compilers can read."""
    recorded = dispatch(mode, _aten.zeros.default, types, args, kwargs)
    slot = proxy_tensor.get_proxy_slot(recorded, mode.tracer)
    return _same_node(mode.tracer, slot, func(*args, **(kwargs or {})))


def _is_without_memory(arg: Any) -> bool:
    """Is it zeros, such as the tangent of a constant?"""
    return isinstance(arg, Tensor) and torch._C._dispatch_keys(arg).has(_ZEROS)


def _uncached(mode: Any, dispatch: Callable[..., Any], *call: Any) -> Any:
    """What is computed of such zeros; the cache takes them for any tensor of their shape."""
    enabled, mode.cache_enabled = mode.cache_enabled, False
    try:
        return dispatch(mode, *call)
    finally:
        mode.cache_enabled = enabled


def record_after_dispatch(body: Callable[[], Any]) -> Any:
    """``body()``, recorded as ``make_fx`` does it without ``pre_dispatch``."""
    before = _ops.unset_mode_pre_dispatch(torch._C._TorchDispatchModeKey.PROXY)
    if before is None:  # another mode than make_fx's
        return body()
    after = ProxyTorchDispatchMode(
        before.tracer,
        before.tracing_mode,
        _allow_fake_constant=before._allow_fake_constant,
        _error_on_data_dependent_ops=before._error_on_data_dependent_ops,
        **decompositions_of(before),
    )
    try:
        with proxy_tensor._temp_remove_pre_dispatch_torch_function_mode(), after:
            return body()
    finally:
        _ops._set_mode_pre_dispatch(before)
