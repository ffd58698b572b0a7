"""Modules of ``torch.distributed.fsdp.fully_shard``: when their parameters are gathered and freed.

A sharded module has its parameters whole only while it computes. Hooks on its outputs gather them
before its backward pass, and one on its inputs frees them after. Transforms meet this three times:

- What gathers and frees parameters has nothing to do with the transforms that run at the time.
- A gradient of samples flows below the plane of the module's outputs, so a hook belongs there too.
- A gradient that is differentiated again computes with the parameters in a pass that starts from
  the module's inputs. A tangent does in a pass beside that of the outputs, which mustn't free them.
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C, _patches
from functorch_ext._patches.after_import import when_imported
from functorch_ext._pytree import map_tensors

_PACKAGE = "torch.distributed.fsdp._fully_shard."
# A backward pass may ask for the parameters after the transform has returned.
_ALWAYS = "one call of Python, where modules are sharded"
_WHEN = "parameters are gathered where transforms compute with them"
_Hook = Callable[[Tensor], Any]


def install() -> None:
    """Teaches sharded modules about transforms; once they are imported, which takes long."""
    when_imported(_PACKAGE + "_fsdp_param_group", _teach_group)
    when_imported(_PACKAGE + "_fsdp_state", _teach_state)


def _teach_group(module: ModuleType) -> None:
    group, identity = module.FSDPParamGroup, module.RegisterPostBackwardFunction
    for name in ("unshard", "wait_for_unshard", "reshard", "post_backward"):
        function = _outside_transforms(getattr(group, name))
        _patches.replace(group, name, function, "gathers and frees parameters", _ALWAYS)
    register, pull_back = group._register_post_backward_hook, identity.backward

    @functools.wraps(register)
    def register_post_backward_hook(self: Any, args: Any, kwargs: Any) -> Any:
        # With a tangent, what was gathered is freed at the very end of the backward pass.
        for tensor in module.collect_grad_tensors((args, kwargs)):
            if _tangent(tensor) is not None:
                return args, kwargs
        return register(self, args, kwargs)

    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        gradients = pull_back(ctx, *cotangents)
        if torch.is_grad_enabled():
            gather = ctx.param_group.modules[0]._get_fsdp_state()._pre_backward
            map_tensors(lambda gradient: _on_all_planes(gradient, gather), gradients)
        return gradients

    hook = register_post_backward_hook
    _patches.replace(group, "_register_post_backward_hook", hook, _WHEN, _ALWAYS)
    _patches.replace(identity, "backward", staticmethod(backward), _WHEN, _ALWAYS)


def _teach_state(module: ModuleType) -> None:
    state = module.FSDPState
    register = state._register_pre_backward_hook

    @functools.wraps(register)
    def register_pre_backward_hook(self: Any, output: Any) -> Any:
        output = register(self, output)
        if torch.is_grad_enabled():
            gather = self._pre_backward
            map_tensors(lambda tensor: _below_and_along(tensor, gather), output)
        return output

    hook = register_pre_backward_hook
    _patches.replace(state, "_register_pre_backward_hook", hook, _WHEN, _ALWAYS)


def _on_all_planes(tensor: Tensor, hook: _Hook) -> Tensor:
    """Puts a hook on a tensor, wherever it is differentiated."""
    if tensor.requires_grad:
        tensor.register_hook(hook)
    return _below_and_along(tensor, hook)


def _below_and_along(tensor: Tensor, hook: _Hook) -> Tensor:
    """Puts a hook on what a tensor stands for on the planes below, and on its tangent."""
    level = _C.level_of((tensor,))
    if level is not None:
        _on_all_planes(level.unwrap(tensor)[0], hook)
    tangent = _tangent(tensor)
    if tangent is not None:
        _on_all_planes(tangent, hook)
    return tensor


def _tangent(tensor: Tensor) -> Tensor | None:
    return torch._VF._unpack_dual(tensor, level=0).tangent


def _outside_transforms(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def outside(*args: Any, **kwargs: Any) -> Any:
        return _C.run_below_all(func, *args, **kwargs)

    return outside
