"""Compiled functions inside our transforms: they run as if they weren't compiled.

What a compiled function computes is one node to autograd, without forward mode and without second
derivatives, and its code has no kernels for our tensors. The program that it was compiled from has
all of that.
"""

from typing import Any

from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy
from torch._dynamo import convert_frame, eval_frame
from torch._dynamo.types import ConvertFrameReturn
from torch.utils import _pytree as pytree

from functorch_ext import _C, _patches
from functorch_ext._releases.compiled_frames import expect_no_compiled_frame

ALONE = _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP)  # a frame, and what it calls


def install() -> None:
    """Has each compiled function ask, when it is called, whether a transform runs."""
    of_stance = eval_frame._callback_from_stance

    def callback_from_stance(callback: Any) -> Any:
        if callback is None or not _C.transform_runs():
            return of_stance(callback)
        expect_no_compiled_frame()
        return None  # Dynamo leaves this thread's frames alone

    _patches.replace(
        eval_frame,
        "_callback_from_stance",
        callback_from_stance,
        "a compiled function has no code for tensors and derivatives of a transform",
        always="one call of Python in each call of a compiled function",
    )

    # In another thread no transform runs, but it may be given our tensors.
    compile_frame: Any = convert_frame.CatchErrorsWrapper.__call__

    def compile_frame_of_plain_tensors(self: Any, frame: Any, *state: Any) -> Any:
        if not _has_our_tensors(frame):
            return compile_frame(self, frame, *state)
        expect_no_compiled_frame()
        return ConvertFrameReturn(frame_exec_strategy=ALONE, apply_to_code=False)

    _patches.replace(
        convert_frame.CatchErrorsWrapper,
        "__call__",
        compile_frame_of_plain_tensors,
        "another thread may compile a function for tensors of a transform",
        always="a look at the arguments when a function is compiled",
    )


def _has_our_tensors(frame: Any) -> bool:
    return any(_holds_our_tensors(value) for value in frame.f_locals.values())


def _holds_our_tensors(value: Any) -> bool:
    try:
        leaves = tuple(pytree.tree_leaves(value))
    except Exception:  # a container that its __init__ hasn't filled yet
        return False
    return _C.level_of_tensors(leaves) is not None
