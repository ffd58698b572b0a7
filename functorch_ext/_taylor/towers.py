"""Pointwise functions of one tensor: the tower of their derivatives at a point."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from functorch_ext._taylor.carrier import Taylor, variable
from functorch_ext._taylor.series import Expansion, Series, faa_di_bruno, second_order, times

# Functions y(x) whose derivative is a polynomial in y: its coefficients, constant first.
POLYNOMIALS: dict[str, tuple[float, ...]] = {
    "exp": (0, 1),
    "reciprocal": (0, 0, -1),
    "rsqrt": (0, 0, 0, -0.5),
    "sigmoid": (0, 1, -1),
    "tan": (1, 0, 1),
    "tanh": (1, 0, -1),
}

# Functions whose derivative is another function.
DERIVATIVES: dict[str, Callable[..., Any]] = {
    "acos": lambda x: -(1 - x * x).rsqrt(),
    "acosh": lambda x: (x - 1).rsqrt() * (x + 1).rsqrt(),
    "asin": lambda x: (1 - x * x).rsqrt(),
    "asinh": lambda x: (1 + x * x).rsqrt(),
    "atan": lambda x: (1 + x * x).reciprocal(),
    "atanh": lambda x: (1 - x * x).reciprocal(),
    "cos": lambda x: -x.sin(),
    "cosh": lambda x: x.sinh(),
    "erf": lambda x: (-x * x).exp() * (2 / math.sqrt(math.pi)),
    "erfc": lambda x: (-x * x).exp() * (-2 / math.sqrt(math.pi)),
    "exp2": lambda x: x.exp2() * math.log(2),
    "expm1": lambda x: x.exp(),
    "log": lambda x: x.reciprocal(),
    "log10": lambda x: x.reciprocal() / math.log(10),
    "log1p": lambda x: (1 + x).reciprocal(),
    "log2": lambda x: x.reciprocal() / math.log(2),
    "sin": lambda x: x.cos(),
    "sinh": lambda x: x.cosh(),
    "sqrt": lambda x: x.rsqrt() / 2,
}

# Functions that are linear on pieces: their slopes.
SLOPES: dict[str, Callable[..., Tensor]] = {
    "abs": lambda x: x.sign(),
    "absolute": lambda x: x.sign(),
    "leaky_relu": lambda x, negative_slope=0.01, inplace=False: torch.where(
        x > 0, torch.ones_like(x), negative_slope
    ),
    "relu": lambda x, inplace=False: (x > 0).to(x.dtype),
}


def by_polynomial(name: str) -> Any:
    """The rule of an entry of ``POLYNOMIALS``."""
    first = POLYNOMIALS[name]

    @functools.cache
    def factors(order: int) -> list[list[float]]:
        """What the slope is multiplied by for the derivatives from the second on."""
        found: list[list[float]] = []
        polynomial: Sequence[float] = first
        for _ in range(1, order):
            # The derivative by x of a polynomial in y is its derivative by y, times the slope.
            found.append([k * c for k, c in enumerate(polynomial)][1:])
            polynomial = _product(found[-1], first)
        return found

    def result(expansion: Expansion, x: Series, y: Tensor) -> Series:
        slope = _evaluated(first, y)
        if expansion.order == 2:
            # f'' is the slope times a polynomial of y, so the slope multiplies both terms at once.
            factor = factors(2)[0]

            def curved(squares: Tensor, second: Tensor | None) -> Tensor:
                return slope * _plus_product(second, factor, y, squares)

            return second_order(expansion, y, slope, x, curved)
        tower: Series = [y, slope]
        for polynomial in factors(expansion.order):
            factor = _evaluated(polynomial, y)
            is_number = not isinstance(factor, Tensor)
            tower.append(times(factor, slope) if is_number else factor * slope)
        return faa_di_bruno(expansion, tower, x)

    return _rule(result)


def by_derivative(name: str) -> Any:
    """The rule of an entry of ``DERIVATIVES``."""
    derivative = DERIVATIVES[name]

    def result(expansion: Expansion, x: Series, y: Tensor) -> Series:
        slope = derivative(variable(x[0], expansion.order - 1))
        tower = [y, *(slope.series if type(slope) is Taylor else [slope])]
        return faa_di_bruno(expansion, tower, x)

    return _rule(result)


def by_slope(name: str) -> Any:
    """The rule of an entry of ``SLOPES``."""
    slope = SLOPES[name]

    def result(expansion: Expansion, x: Series, y: Tensor, *args: Any, **kwargs: Any) -> Series:
        factor = slope(x[0], *args, **kwargs)
        return [y, *(None if each is None else factor * each for each in x[1:])]

    return _rule(result, is_real=True)


def power(
    expansion: Expansion, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The rule of ``pow`` with a number as the exponent."""
    if kwargs or type(args[0]) is not Taylor or not isinstance(args[1], int | float):
        return NotImplemented
    series, exponent = args[0].series, args[1]
    x: Any = series[0]
    tower: Series = [func(x, exponent)]
    factor = 1.0
    for k in range(expansion.order):
        factor *= exponent - k
        left = exponent - k - 1
        if factor == 0:
            tower.append(None)
        else:
            tower.append(times(factor, x if left == 1 else x**left))
    return Taylor(expansion, faa_di_bruno(expansion, tower, series))


def _plus_product(a: Tensor | None, polynomial: Sequence[float], y: Tensor, b: Tensor) -> Tensor:
    """a + polynomial(y) b, in few operators."""
    if a is None:
        return _evaluated(polynomial, y) * b
    if len(polynomial) == 1:
        return a.add(b, alpha=polynomial[0])
    if len(polynomial) == 2 and not polynomial[0]:
        return a.addcmul(y, b, value=polynomial[1])
    return a.addcmul(_evaluated(polynomial, y), b)


def _rule(result: Callable[..., Series], is_real: bool = False) -> Any:
    def rule(
        expansion: Expansion,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if "out" in kwargs or kwargs.get("inplace") or type(args[0]) is not Taylor:
            return NotImplemented
        series, (_, *others) = args[0].series, args
        x: Any = series[0]
        if is_real and x.is_complex():
            return NotImplemented
        y = func(x, *others, **kwargs)
        return Taylor(expansion, result(expansion, series, y, *others, **kwargs))

    return rule


def _product(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """The product of two polynomials."""
    result = [0.0] * (len(a) + len(b) - 1)
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            result[i + j] += left * right
    return result


def _evaluated(polynomial: Sequence[float], y: Tensor) -> Any:
    """The polynomial at y, by Horner's rule."""
    constant, *rest = polynomial
    if rest and constant and rest[-1] < 0:
        return torch.rsub(_evaluated([0, *(-each for each in rest)], y), constant)
    *lower, highest = polynomial
    result: Any = highest
    for coefficient in reversed(lower):
        result = result * y if isinstance(result, Tensor) else times(result, y)
        if coefficient:
            result = result + coefficient
    return result
