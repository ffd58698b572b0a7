"""Custom ``torch.autograd.Function``: how its ``apply`` is replaced, and what its nodes have.

Programs keep ``op = MyFunction.apply``, perhaps since before this package was imported. So what is
behind the attribute is replaced, not the attribute.
"""

import ast
import functools
import inspect
import textwrap
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

    # The names are globals of the function that gets this code.
    _CHECK = """
if not _functorch_ext_is_plain_application(args, kwargs):
    return _functorch_ext_apply(cls, *args, **kwargs)
"""

    def _code_with_check() -> types.CodeType:
        """PyTorch's own code of ``apply``, behind a check whether that is all there is to do."""
        lines, first = inspect.getsourcelines(_apply)
        source = ast.parse(textwrap.dedent("".join(lines)))
        ast.increment_lineno(source, first - 1)
        [apply] = source.body
        assert isinstance(apply, ast.FunctionDef)
        apply.body[:0] = ast.parse(_CHECK).body
        # In a class, since it asks for `super()`.
        [holder] = ast.parse("class Function: pass").body
        assert isinstance(holder, ast.ClassDef)
        holder.body = [apply]
        source.body = [holder]
        code = compile(source, _apply.__code__.co_filename, "exec")
        for name in ("Function", "apply"):
            code = next(each for each in _codes_in(code) if each.co_name == name)
        return code

    def _codes_in(code: types.CodeType) -> list[types.CodeType]:
        return [each for each in code.co_consts if isinstance(each, types.CodeType)]

    def replacing_apply(replacement: Callable[..., Any]) -> tuple[Change, Change]:
        """What puts a replacement of ``Function.apply`` on, and what takes it off."""
        globals_of_apply = _apply.__globals__
        globals_of_apply["_functorch_ext_is_plain_application"] = _C.is_plain_application
        globals_of_apply["_functorch_ext_apply"] = replacement
        return (
            functools.partial(setattr, _apply, "__code__", _code_with_check()),
            functools.partial(setattr, _apply, "__code__", plain_apply.__code__),
        )

    def single_level_apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        """What ``Function.apply`` does where no transform of torch.func's runs."""
        with enable_single_level_autograd_function():
            return super(Function, cls).apply(*args, **kwargs)  # type: ignore[misc]
