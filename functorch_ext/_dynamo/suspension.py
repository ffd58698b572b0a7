"""Compiled functions inside our transforms: they run as if they weren't compiled.

What a compiled function computes is one node to autograd, without forward mode and without second
derivatives, and its code has no kernels for our tensors. The program that it was compiled from has
all of that.
"""

from typing import Any

from torch._C._dynamo.eval_frame import set_fullgraph_compiled_frame_count
from torch._dynamo import eval_frame

from functorch_ext import _C


def install() -> None:
    """Has each compiled function ask, when it is called, whether a transform runs."""
    of_stance = eval_frame._callback_from_stance

    def callback_from_stance(callback: Any) -> Any:
        if callback is None or not transform_runs():
            return of_stance(callback)
        # A function compiled with fullgraph=True raises if no frame was compiled; don't count.
        set_fullgraph_compiled_frame_count(-1)
        return None  # Dynamo leaves this thread's frames alone

    eval_frame._callback_from_stance = callback_from_stance


def transform_runs() -> bool:
    """Does a transform run on this thread?"""
    return _C.running_level() is not None or _C.is_differentiating()
