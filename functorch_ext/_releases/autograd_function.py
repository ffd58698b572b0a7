"""Custom ``torch.autograd.Function``: how its ``apply`` is replaced, and what its nodes have.

Programs keep ``op = MyFunction.apply``, perhaps since before this package was imported. So what is
behind the attribute is replaced, not the attribute.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import Function, function

from functorch_ext import _C
from functorch_ext._releases import since

# Whether a backward may get its cotangents as one list, from which it takes them.
HAS_BOXED_BACKWARD = since((2, 13))

Change = Callable[[], None]

if since((2, 14)):  # a function of C
    plain_apply: Callable[..., Any] = _C.plain_apply(Function.apply)

    def replacing_apply(replacement: Callable[..., Any]) -> tuple[Change, Change]:
        """What puts a replacement of ``Function.apply`` on, and what takes it off."""
        return (
            functools.partial(_C.replace_apply, Function.apply, replacement),
            functools.partial(_C.replace_apply, Function.apply, None),
        )

    _SINGLE_LEVEL = "_functorch_ext_single_level"

    def single_level_apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        """What ``Function.apply`` does where no transform of torch.func's runs."""
        with enable_single_level_autograd_function():
            return plain_apply(_single_level(cls), *args, **kwargs)

    def _single_level(cls: type[Function]) -> Any:
        """The function as one that PyTorch doesn't hand to torch.func's transforms."""
        if known := cls.__dict__.get(_SINGLE_LEVEL):
            return known
        members: dict[str, Any] = {}
        for each in reversed(cls.__mro__[: cls.__mro__.index(Function)]):
            members.update(vars(each))
        for name in ("__dict__", "__weakref__", "_backward_cls", "apply", _SINGLE_LEVEL):
            members.pop(name, None)
        make: Any = type(cls)
        made = make(cls.__name__, (function._SingleLevelFunction,), members)
        setattr(cls, _SINGLE_LEVEL, made)
        return made

else:  # one of Python
    _bound: Any = Function.apply
    _apply = _bound.__func__
    plain_apply = types.FunctionType(
        _apply.__code__,
        _apply.__globals__,
        _apply.__name__,
        _apply.__defaults__,
        _apply.__closure__,
    )

    class _Entry(Function):
        @classmethod
        def apply(cls, *args: Any, **kwargs: Any) -> Any:
            # A closure of one cell, as the function has that gets this code.
            __class__  # type: ignore[name-defined]  # noqa: B018, F821
            # A global of that function.
            return _functorch_ext_apply(cls, *args, **kwargs)  # type: ignore[name-defined]  # noqa: F821

    def replacing_apply(replacement: Callable[..., Any]) -> tuple[Change, Change]:
        """What puts a replacement of ``Function.apply`` on, and what takes it off."""
        _apply.__globals__["_functorch_ext_apply"] = _C.switch(plain_apply, replacement)
        entry: Any = _Entry.apply
        return (
            functools.partial(setattr, _apply, "__code__", entry.__func__.__code__),
            functools.partial(setattr, _apply, "__code__", plain_apply.__code__),
        )

    def single_level_apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        """What ``Function.apply`` does where no transform of torch.func's runs."""
        with enable_single_level_autograd_function():
            return super(Function, cls).apply(*args, **kwargs)  # type: ignore[misc]
