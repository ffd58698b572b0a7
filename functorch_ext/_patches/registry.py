"""The registry of patches: each is listed with its reason and cost, and can be undone."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from functorch_ext import _C


@dataclasses.dataclass(frozen=True)
class Patch:
    """A replacement of one of PyTorch's functions.

    Attributes:
        target: What is replaced, as a program would write it.
        why: What goes wrong without it.
        cost: What a call outside of all transforms does in addition.
    """

    target: str
    why: str
    cost: str
    put_on: Callable[[], None] = dataclasses.field(repr=False)
    take_off: Callable[[], None] = dataclasses.field(repr=False)


class Patches(tuple[Patch, ...]):
    """All patches, in the order in which they were put on. Prints as a table."""

    def take_off(self) -> None:
        """Gives PyTorch its own functions back, until :meth:`put_on`. Transforms then know less."""
        for patch in reversed(self):
            patch.take_off()

    def put_on(self) -> None:
        """Replaces PyTorch's functions again."""
        for patch in self:
            patch.put_on()

    def __repr__(self) -> str:
        rows = [("Replaced", "Why", "Cost outside of transforms")]
        rows += [(patch.target, patch.why, patch.cost) for patch in self]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        lines = [f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}" for row in rows]
        return "\n".join(lines)


IN_C = "one call in C, which looks at two flags"

_registry: list[Patch] = []


def patches() -> Patches:
    """What the package replaces in PyTorch's Python code.

    Returns:
        A tuple of patches, each with its ``target``, ``why`` it is there and its ``cost`` outside
        of transforms. It prints as a table. ``patches().take_off()`` undoes all of them, and
        ``patches().put_on()`` does them again.

    Example::

        >>> next(patch.why for patch in patches() if patch.target == "torch.Tensor.register_hook")
        'a hook inside vmap gets the samples of a cotangent'
    """
    return Patches(_registry)


def add(patch: Patch) -> None:
    """Puts a patch on, and lists it."""
    patch.put_on()
    _registry.append(patch)


def replace(
    owner: Any,
    name: str,
    replacement: Any,
    why: str,
    always: str | None = None,
    switch: Callable[..., Any] = _C.switch,
) -> None:
    """Replaces a function of a module or class, and lists that.

    Args:
        owner: The module or class.
        name: The function. A method that the class inherits, or lacks, becomes its own.
        replacement: What is called in its place, while anything of the engine is in play: a tensor
            of a level, or a derivative on this thread.
        why: What goes wrong without it.
        always: Why it is to be called even where nothing of the engine is in play yet: its cost.
        switch: What tells whether anything is.
    """
    missing = object()
    # As it is stored: a static or class method would come bound from getattr.
    own = vars(owner).get(name, missing)
    is_static = isinstance(replacement, staticmethod)
    if always is None:
        plain = getattr(owner, name)
        ours = replacement.__func__ if is_static else replacement
        replacement = functools.update_wrapper(switch(plain, ours), plain)
        replacement = staticmethod(replacement) if is_static else replacement

    def put_on() -> None:
        setattr(owner, name, replacement)

    def take_off() -> None:
        if own is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, own)

    where = f"{owner.__module__}.{owner.__name__}" if inspect.isclass(owner) else owner.__name__
    add(Patch(f"{where}.{name}", why, always or IN_C, put_on, take_off))
