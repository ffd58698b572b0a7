"""Transforms of ``torch.func`` inside those of this package.

The engine lets each see operators in the order in which the transforms began. What is left to do
here is forward mode: PyTorch has one dual level for all, which may be open already.
"""

import threading

import torch
from torch._functorch.autograd_function import custom_function_call
from torch.autograd import forward_ad

from functorch_ext import _C, _patches
from functorch_ext._releases import dual_levels


class _Joined(threading.local):
    """How many of their dual levels on this thread are one of ours."""

    count = 0


_joined = _Joined()


def install() -> None:
    """Lets ``torch.func.jvp`` share the dual level that a ``jvp`` of this package has opened."""
    plain_enter = getattr(dual_levels.OWNER, dual_levels.ENTER)
    plain_leave = getattr(dual_levels.OWNER, dual_levels.EXIT)

    def enter() -> int:
        # Their tensors have tangents of their own; a dual level of the program's wouldn't.
        of_theirs = forward_ad._current_level < 0 and torch._C._are_functorch_transforms_active()
        if of_theirs and _C.join_dual_level():
            _joined.count += 1
            return 0
        return plain_enter()

    def leave(*, level: int) -> None:
        if level == 0 and _joined.count > 0:
            _joined.count -= 1
            _C.leave_dual_level()
        else:
            plain_leave(level=level)

    _skip_keys_of_modes()
    why, cost = "torch.func.jvp inside jvp shares its dual level", "one look at two flags"
    _patches.replace(dual_levels.OWNER, dual_levels.ENTER, enter, why, cost)
    _patches.replace(dual_levels.OWNER, dual_levels.EXIT, leave, why, cost)


def _skip_keys_of_modes() -> None:
    """Custom functions inside torch.func's transforms look for a kernel in Python on each key."""
    plain = custom_function_call.non_fallthrough_keys
    ours = plain
    for name in ("TESTING_ONLY_GenericMode", "TESTING_ONLY_GenericWrapper"):
        ours = ours.remove(torch._C._dispatch_key_parse(name))

    def use(keys: torch._C.DispatchKeySet) -> None:
        custom_function_call.non_fallthrough_keys = keys

    _patches.add(
        _patches.Patch(
            "torch._functorch.autograd_function.custom_function_call.non_fallthrough_keys",
            "torch.func finds no kernel for a custom function inside vmap on the engine's keys",
            "none",
            lambda: use(ours),
            lambda: use(plain),
        )
    )
