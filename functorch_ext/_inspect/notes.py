"""What an error inside a transform says in addition, as a note (PEP 678)."""

import sys
import types

from functorch_ext import _C
from functorch_ext._inspect.error_index import page_of
from functorch_ext._inspect.places import place_of_call, place_of_error
from functorch_ext._inspect.stack import running_transforms

PREFIX = "functorch_ext: raised inside "


def note(error: Exception, trace: types.TracebackType | None) -> None:
    """Notes the transforms, the operator and the user's line on an exception that leaves one.

    The innermost transform does; those around find the note.
    """
    if _is_signal(error) or any(each.startswith(PREFIX) for each in notes_of(error)):
        return
    try:
        text = _text(error, trace, sys._getframe(1))
    except Exception:
        return  # such as a RecursionError: it must not hide the program's own
    if text:
        BaseException.add_note(error, text)


def _text(
    error: Exception, trace: types.TracebackType | None, frame: types.FrameType
) -> str | None:
    transforms = running_transforms(frame, trace)
    if not transforms:
        return None
    text = PREFIX + " > ".join(transforms)
    if operator := _C.failed_operator(str(error)):
        text += f", by the operator {operator}"
    if place := place_of_error(trace) or place_of_call(frame):
        text += f"\n  at {place}"
    if page := page_of(str(error)):
        text += f"\n  explained in the documentation: {page}"
    return text


def notes_of(error: BaseException) -> list[str]:
    """The notes on an exception."""
    return [each for each in getattr(error, "__notes__", ()) if isinstance(each, str)]


def _is_signal(error: Exception) -> bool:
    """Is it how our code, or PyTorch's, talks to itself?"""
    kind = type(error)
    if kind.__module__.startswith("functorch_ext"):
        return not isinstance(error, Warning)
    if kind.__module__ == "torch._C":
        return False  # an error of PyTorch's in C++: LinAlgError is _LinAlgError there
    return kind.__module__.startswith("torch.") and kind.__name__.startswith("_")
