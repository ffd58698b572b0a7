"""The tensor that holds a series."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from functorch_ext._pytree import flatten, unflatten
from functorch_ext._taylor.series import Expansion, Series

# What most arguments are that aren't series.
_NO_CONTAINERS = {bool, float, int, str, Tensor, torch.nn.Parameter, torch.dtype, type(None)}

# Takes the expansion, and an operator with its arguments; NotImplemented if it isn't for these.
Rule = Callable[[Expansion, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class NotPropagated(BaseException):
    """A series met what isn't an operator on values: a write, an inner transform, plain autograd.

    No ``Exception``: the function that is differentiated mustn't catch it.
    """


class Taylor(Tensor):
    """A series in the place of a tensor, whose value it shows.

    Operators are met in Python, above the dispatcher: the derivatives that it holds may belong to
    any plane, and whatever differentiates or traces these follows what the rules compute.
    """

    expansion: Expansion
    series: Series
    rules: ClassVar[dict[Any, Rule]] = {}
    otherwise: ClassVar[Rule]

    @staticmethod
    def __new__(cls, expansion: Expansion, series: Series) -> "Taylor":
        value = series[0]
        assert value is not None
        made = Tensor._make_wrapper_subclass(
            cls, value.shape, dtype=value.dtype, device=value.device, requires_grad=False
        )
        made.expansion = expansion
        made.series = series
        return made

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = cls.rules.get(func)
        expansion = _expansion_of(args, kwargs)
        if rule is not None and args:
            result = rule(expansion, func, args, kwargs)
            if result is not NotImplemented:
                return result
        return cls.otherwise(expansion, func, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise NotPropagated(str(func))


def _expansion_of(args: Any, kwargs: Any) -> Expansion:
    """The one that all series among the arguments have."""
    found: Expansion | None = None
    for arg in args:
        for each in arg if type(arg) in (list, tuple) else (arg,):
            if type(each) is Taylor and each.expansion is not found:
                if found is not None:
                    raise NotPropagated("series of two transforms")
                found = each.expansion
    return found or carriers_in((args, kwargs))[0].expansion


def carriers_in(tree: Any) -> list[Taylor]:
    """The series among the leaves of a tree."""
    return [leaf for leaf in flatten(tree)[0] if type(leaf) is Taylor]


def any_carriers(args: Iterable[Any]) -> bool:
    """Are there series among arguments, or in containers among them?"""
    return any(type(arg) not in _NO_CONTAINERS and carriers_in(arg) != [] for arg in args)


def primals(tree: Any) -> Any:
    """The tree with values in the place of series."""
    leaves, structure = flatten(tree)
    return unflatten(structure, [x.series[0] if type(x) is Taylor else x for x in leaves])


def series_of(value: Any, expansion: Expansion) -> Series:
    """The series of a tensor, which is constant if it isn't a carrier."""
    if type(value) is Taylor:
        return value.series
    return [value] + [None] * expansion.order


def fitted(expansion: Expansion, series: Series) -> Taylor:
    """The carrier of a series whose derivatives may be narrower than the value."""
    value = series[0]
    assert value is not None
    for k, each in enumerate(series):
        if each is None or k == 0:
            continue
        if each.dtype != value.dtype:
            each = each.to(value.dtype)
        series[k] = each if each.shape == value.shape else each.expand(value.shape)
    return Taylor(expansion, series)


def variable(value: Tensor, order: int) -> Any:
    """The series of the value along which one differentiates by it; the value for order 0."""
    if order == 0:
        return value
    rest: Series = [None] * (order - 1)
    return Taylor(Expansion(order), [value, torch.ones_like(value), *rest])
