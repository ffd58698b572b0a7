"""Transforms of ``torch.func`` inside those of this package.

They know nothing of each other's tensors: PyTorch would stop at a failed assertion, or crash. So
one of theirs can't start inside one of ours that has tensors of its own. (The engine refuses the
other way around. Where only plain tensors are differentiated, both nest.)
"""

import functools
from collections.abc import Callable
from typing import Any

from torch._functorch import eager_transforms, vmap

from functorch_ext import _C, _patches

# What starts a transform of theirs, where they look it up.
_STARTS = (
    (vmap, "_vmap_increment_nesting"),
    (eager_transforms, "_grad_increment_nesting"),
    (eager_transforms, "enter_jvp_nesting"),
    (eager_transforms, "_func_increment_nesting"),
)


def install() -> None:
    """Lets torch.func refuse to start where it can't run."""
    for module, name in _STARTS:
        _patches.replace(
            module,
            name,
            _outside_ours(getattr(module, name)),
            "torch.func inside a transform of ours would crash",
        )


def _outside_ours(start: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(start)
    def start_or_refuse(*args: Any, **kwargs: Any) -> Any:
        started = start(*args, **kwargs)
        if _C.running_level() is not None:  # what the caller ends in a `finally`, it has to start
            raise RuntimeError(
                "torch.func's transforms can't run inside functorch_ext's (vmap, functionalize, or "
                "forward mode in forward mode): they know nothing of its tensors. Use "
                "functorch_ext's in both places."
            )
        return started

    return start_or_refuse
