"""What tracing can't do, in terms of the program's lines."""

import os
import sys
import traceback
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

_PACKAGES = tuple(
    os.path.dirname(os.path.dirname(path)) if path == __file__ else os.path.dirname(path)
    for path in (__file__, torch.__file__)
)

_VALUE_READ = (DataDependentOutputException, DynamicOutputShapeException)


class TracingError(RuntimeError):
    """The function does what a graph can't hold."""


def is_value_read(error: BaseException) -> bool:
    """Is this what comes of reading a value that isn't known?"""
    sizes: Any = sys.modules.get("torch.fx.experimental.symbolic_shapes")  # if they have been used
    if str(error).startswith(".numpy() is not supported"):
        return True
    return isinstance(error, _VALUE_READ) or (
        sizes is not None and isinstance(error, sizes.GuardOnDataDependentSymNode)
    )


def line_of_program(error: BaseException) -> str:
    """Where the program was when the error came, as ``file:line, in function: source``."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_PACKAGES) and not frame.filename.startswith("<")
    ]
    if not frames:
        return "a line that isn't known"
    last = frames[-1]
    return f"{last.filename}:{last.lineno}, in {last.name}: {last.line}"


def value_read(error: BaseException) -> TracingError:
    """The error for control flow on values, and for shapes that depend on them."""
    return TracingError(
        "functorch_ext.jit: the function reads the value of a tensor, which isn't known while it "
        f"is traced, at\n  {line_of_program(error)}\n"
        "Instead of `if` use torch.where; instead of .item(), the tensor itself; instead of a "
        "boolean mask as an index, torch.where. A number that decides "
        "what to compute can be a Python number, or be named in static_argnums."
    )


def written_to(error: BaseException) -> TracingError:
    """The error for a write to an argument that requires grad."""
    return TracingError(
        "functorch_ext.jit: the function writes to an argument or a closed-over tensor that "
        f"requires grad, at\n  {line_of_program(error)}\n"
        "Return the new value instead, write to a clone, or call the function under "
        "torch.no_grad()."
    )


def not_kept(reason: str) -> TracingError:
    """The error for what autograd would do to tensors from outside."""
    return TracingError(
        f"functorch_ext.jit: the function {reason}. Later calls would not repeat that: return the "
        "values instead, and compute gradients with functorch_ext.grad."
    )
