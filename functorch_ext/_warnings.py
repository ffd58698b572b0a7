"""How the engine tells that an operator has no batching rule."""

import warnings


class FallbackWarning(UserWarning):
    """An operator has no batching rule and ran once per sample in a loop: right, but slow."""


# With the default filter Python shows a text once per registry, so once per operator.
_shown: dict[object, object] = {}


def warn_of_loop(message: str) -> None:
    """Warns from one place whatever the caller, so that filters see one event per operator."""
    warnings.warn_explicit(
        message,
        category=FallbackWarning,
        filename=__file__,
        lineno=0,
        module=__name__,
        registry=_shown,
    )
