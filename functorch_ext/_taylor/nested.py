"""The series of any operator's result, by forward mode nested as deep as the order."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functorch_ext._pytree import flatten, unflatten
from functorch_ext._taylor.carrier import NotPropagated, Taylor
from functorch_ext._taylor.series import Expansion, Series, plus
from functorch_ext.forward import jvp


def otherwise(
    expansion: Expansion, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The rule of operators that have no other."""
    _check_writes_nothing(func, kwargs)
    return propagate(expansion, func, args, kwargs)


def propagate(
    expansion: Expansion, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The result of a function, with series in the place of the tensors that have a derivative.

    With x_k the k-th derivative of the arguments along the curve, that of the result is a function
    f_k of x_0, ..., x_k, and f_(k+1) is the derivative of f_k along x_1, ..., x_(k+1). The last
    derivative of a collapsed series isn't part of this: it enters linearly.
    """
    leaves, structure = flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if type(leaf) is Taylor]
    given = [leaves[i].series for i in places]
    results: list[Any] = []
    result_structure: Any = None

    def call(*values: Any) -> list[Tensor]:
        nonlocal results, result_structure
        filled = list(leaves)
        for place, value in zip(places, values, strict=True):
            filled[place] = value
        positional, named = unflatten(structure, filled)
        results, result_structure = flatten(func(*positional, **named))
        return [x for x in results if isinstance(x, Tensor)]

    def derivatives(order: int) -> Callable[..., list[list[Tensor]]]:
        """f_0 to f_order of all results, as a function of x_0 to x_order."""
        if order == 0:
            # A value besides the results, of which there may be none.
            return lambda values: [[*call(*values), values[0]]]
        below = derivatives(order - 1)

        def raised(*curve: list[Tensor]) -> list[list[Tensor]]:
            values, rates = jvp(below, curve[:-1], curve[1:])
            return [*values, rates[-1]]

        return raised

    curve = [[_or_zeros(series[k], series) for series in given] for k in range(expansion.order + 1)]
    if expansion.collapses:
        curve[-1] = [_or_zeros(None, series) for series in given]
    columns = [list(column) for column in zip(*derivatives(expansion.order)(*curve), strict=True)]
    if expansion.collapses:
        for column, term in zip(columns, _last_terms(call, given, len(columns)), strict=False):
            if _has_derivative(column[0]):
                column[-1] = plus(expansion.collapse(column[-1]), term)
    made = []
    for result in results:
        if isinstance(result, Tensor):
            column = columns.pop(0)
            result = Taylor(expansion, column) if _has_derivative(column[0]) else column[0]
        made.append(result)
    return unflatten(result_structure, made)


def _last_terms(call: Callable[..., list[Tensor]], given: list[Series], count: int) -> list[Any]:
    """What the last derivatives contribute to each result, or None for zeros."""
    if all(series[-1] is None for series in given):
        return [None] * count
    values = tuple(series[0] for series in given)
    last = tuple(_or_zeros(series[-1], series) for series in given)
    return jvp(call, values, last)[1]


def _or_zeros(derivative: Tensor | None, series: Series) -> Tensor:
    return torch.zeros_like(series[0]) if derivative is None else derivative


def _has_derivative(leaf: Tensor) -> bool:
    return leaf.is_floating_point() or leaf.is_complex()


def _check_writes_nothing(func: Callable[..., Any], kwargs: dict[str, Any]) -> None:
    """Raises for an operator that isn't a function of values."""
    name = getattr(func, "__name__", "")
    writes = name.endswith("_") and not name.endswith("__")
    writes = writes or (name.startswith("__i") and name not in ("__index__", "__invert__"))
    if writes or name in _NO_VALUES or kwargs.get("inplace") or kwargs.get("out") is not None:
        raise NotPropagated(name)


_NO_VALUES = {
    *("__set__", "__delete__", "__setitem__", "__get__", "__array__", "numpy", "data_ptr"),
    *("backward", "grad", "register_hook", "storage", "untyped_storage", "share_memory"),
    *("as_strided", "set", "resize", "__reduce_ex__", "__deepcopy__", "__dlpack__"),
    *("register_post_accumulate_grad_hook", "retain_grad"),
}
