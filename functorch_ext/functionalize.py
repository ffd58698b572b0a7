"""``functionalize``: a program without mutations, and without views where asked."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from functorch_ext import _C
from functorch_ext._dynamo.entry import EAGER
from functorch_ext._pytree import leaves_of, map_tensors

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

_REMOVE = ("mutations", "mutations_and_views")


def functionalize(
    func: Callable[_Params, _Result], *, remove: str = "mutations"
) -> Callable[_Params, _Result]:
    """Removes mutations from ``func``: it computes the same with functional operators alone.

    Inside, a write to a tensor, or to a view of it, computes a new value; everything that shares
    memory with the tensor sees it. Inputs that ``func`` writes to get their new values in the end,
    with one ``copy_`` each. Traced with ``make_fx`` the result is a graph for compilers and other
    tools that don't know about memory.

    Tensors from outside that aren't arguments can be read. A write to one that depends on the
    arguments can't be expressed and raises.

    Args:
        func: Takes and returns tensors, or containers of them, and other objects as they are.
        remove: ``"mutations"`` removes in-place and ``out=`` operators; ``"mutations_and_views"``
            removes operators that return views as well: ``view_copy`` for ``view``.

    Returns:
        A function of the arguments of ``func``. Where an output shares memory with an input that
        ``func`` writes to, it shares none afterwards.

    Raises:
        RuntimeError: ``remove`` is something else, or ``func`` does what functional operators
            can't express: it resizes a view, or writes to a tensor from outside.

    Example::

        >>> def double_the_diagonal(x):
        ...     y = x.clone()
        ...     y.diagonal().mul_(2)
        ...     return y
        >>> functorch_ext.functionalize(double_the_diagonal)(torch.ones(2, 2))
        tensor([[2., 1.],
                [1., 2.]])
    """
    if remove not in _REMOVE:
        raise RuntimeError(
            f"functorch_ext.functionalize: received invalid argument for remove={remove!r}. It "
            "must be 'mutations' or 'mutations_and_views'."
        )

    def run(args: Any, kwargs: Any) -> Any:
        def body(frame: _C.FunctionalFrame) -> Any:
            inner_args, inner_kwargs = map_tensors(frame.wrap, (args, kwargs))
            return map_tensors(frame.unwrap, func(*inner_args, **inner_kwargs))

        return _C.run_functional(body, remove == "mutations_and_views")

    @functools.wraps(func)
    def functional(*args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        if not EAGER:
            return func(*args, **kwargs)  # compilers remove mutations by themselves
        return _C.call_on_plane_of(tuple(leaves_of((args, kwargs))), run, args, kwargs)

    return functional
