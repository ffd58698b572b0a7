"""How the engine tells that an operator has no batching rule."""

import os
import sys
import types
import warnings

import torch

from functorch_ext import _C


class FallbackWarning(UserWarning):
    """An operator has no batching rule and ran once per sample in a loop: right, but slow."""


# Operators reported under a filter that shows repeated warnings once.
_shown: set[str] = set()

_OURS = os.path.dirname(os.path.abspath(__file__))
_TORCH = os.path.dirname(os.path.abspath(torch.__file__))


def warn_of_loop(message: str) -> None:
    """Warns of a per-sample loop, at the line of the user's that led to it.

    Where Python's filters would show a warning once per line, it is shown once per operator.
    """
    if _C.note_observed_loop(message):
        return  # it is part of a report
    frame = _users_frame()
    module = frame.f_globals.get("__name__", "<unknown>")
    if _action(message, module, frame.f_lineno) in ("default", "module", "once"):
        if message in _shown:
            return
        _shown.add(message)
    warnings.warn_explicit(
        message,
        category=FallbackWarning,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=module,
        registry={},
    )


def _users_frame() -> types.FrameType:
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_OURS, _TORCH)):
        frame = frame.f_back
    return frame


def _action(message: str, module: str, line: int) -> str:
    """What Python's filters say to a FallbackWarning of this text at this place."""
    for action, text, category, where, at_line in warnings.filters:
        if (
            (text is None or text.match(message))
            and issubclass(FallbackWarning, category)
            and (where is None or where.match(module))
            and at_line in (0, line)
        ):
            return action
    return getattr(warnings, "defaultaction", "default")
