"""Differentiation by keyword arguments: ``argnames`` in place of ``argnums``."""

import functools
from collections.abc import Callable
from typing import Any

from functorch_ext._describing import kind_of

Argnames = str | tuple[str, ...]


def by_names(
    name: str,
    transform: Callable[[Callable[..., Any]], Callable[..., Any]],
    func: Callable[..., Any],
    argnums: Any,
    argnames: Argnames,
) -> Callable[..., Any]:
    """``transform(func)`` by the keyword arguments of these names; they are given by keyword."""
    names = (argnames,) if isinstance(argnames, str) else argnames
    if not isinstance(names, tuple) or not names or not all(isinstance(x, str) for x in names):
        raise TypeError(
            f"functorch_ext.{name}: argnames must be a name or a tuple of names, but got "
            f"{argnames!r}."
        )
    if len(set(names)) != len(names):
        raise ValueError(
            f"functorch_ext.{name}: argnames must be different ones, but {argnames!r} names an "
            "argument twice."
        )
    if argnums != 0:
        raise ValueError(
            f"functorch_ext.{name}: give argnums or argnames, not both: got argnums={argnums!r} "
            f"and argnames={argnames!r}."
        )

    def of_values(values: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = (values,) if isinstance(argnames, str) else values
        return func(*args, **kwargs, **dict(zip(names, values, strict=True)))

    functools.update_wrapper(of_values, func)
    differentiated = transform(of_values)

    @functools.wraps(func)
    def called(*args: Any, **kwargs: Any) -> Any:
        missing = [each for each in names if each not in kwargs]
        if missing:
            raise TypeError(
                f"functorch_ext.{name}: {kind_of(func)} is to be differentiated by "
                f"{', '.join(missing)}, but the call has no keyword argument of that name."
            )
        values = tuple(kwargs.pop(each) for each in names)
        return differentiated(values[0] if isinstance(argnames, str) else values, args, kwargs)

    return called
