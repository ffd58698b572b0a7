"""Arithmetic of truncated Taylor series.

A series is the list of a curve's value and derivatives, in order; ``None`` stands for zeros. In a
*collapsed* series the last one is a sum over directions, whereas the others have a value for each:
of what makes up the last derivative, the terms in lower ones are summed where they arise.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from functorch_ext import _C

Series = list[Any]  # of tensors and None


class Expansion:
    """How far series go: up to the derivative ``order``."""

    collapses = False

    def __init__(self, order: int) -> None:
        self.order = order

    def collapse(self, term: Tensor) -> Tensor:
        """The share of the last derivative that a product of lower ones has."""
        return term

    def scaled_and_squared(self, first: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """The first derivative times a slope, and the share of its square in the last one."""
        return slope * first, self.collapse(first * first)


class CollapsedExpansion(Expansion):
    """Sums the last derivative over directions, which are the samples of a level."""

    collapses = True

    def __init__(self, order: int, level: _C.Level, weights: Tensor | None = None) -> None:
        super().__init__(order)
        self._level = level
        self._weights = weights

    def collapse(self, term: Tensor) -> Tensor:
        if self._weights is not None:
            term = term * self._weights
        value, dim = self._level.unwrap(term)
        if dim is None:
            return term * self._level.batch_size
        return _C.run_below(self._level, Tensor.sum, value, dim)

    def scaled_and_squared(self, first: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        in_one_pass = None
        if self._weights is None:
            in_one_pass = _C.scaled_and_squared(self._level, first, slope)
        return in_one_pass or super().scaled_and_squared(first, slope)


def plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of two derivatives."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def times(number: float, term: Tensor) -> Tensor:
    """The multiple of a derivative."""
    return term if number == 1 else term * number


def leibniz(
    expansion: Expansion, product: Callable[[Tensor, Tensor], Tensor], a: Series, b: Series
) -> Series:
    """The series of a bilinear function of two others: (ab)_k = sum_j binom(k, j) a_j b_(k-j)."""
    series: Series = []
    for k in range(expansion.order + 1):
        ends: Tensor | None = None
        inner: Tensor | None = None
        for j in range(k + 1):
            left, right = a[j], b[k - j]
            if left is None or right is None:
                continue
            term = times(math.comb(k, j), product(left, right))
            if 0 < j < k:
                inner = plus(inner, term)
            else:
                ends = plus(ends, term)
        if inner is not None and k == expansion.order:
            inner = expansion.collapse(inner)
        series.append(plus(ends, inner))
    return series


def faa_di_bruno(expansion: Expansion, tower: Series, x: Series) -> Series:
    """The series of f(x), of which ``tower`` holds the value and the derivatives at the point.

    The k-th derivative is a sum over the partitions of k things into blocks::

        f(x)_k = sum over partitions f^(number of blocks) prod over blocks x_(size of the block)
    """
    if expansion.order == 2:
        value, slope, change = tower

        def curved(squares: Tensor, second: Tensor | None) -> Tensor:
            if second is None:
                return change * squares
            return (slope * second).addcmul(change, squares)

        return second_order(expansion, value, slope, x, None if change is None else curved)
    series: Series = [tower[0]]
    for k in range(1, expansion.order + 1):
        total: Tensor | None = None
        for blocks in range(1, k + 1):
            factor = tower[blocks]
            if factor is None:
                continue
            inner: Tensor | None = None
            for count, sizes in _partitions(k, blocks):
                parts = [x[size] for size in sizes]
                if not any(part is None for part in parts):
                    product = functools.reduce(Tensor.mul, parts)
                    inner = plus(inner, times(count, product))
            if inner is None:
                continue
            if k == expansion.order and blocks > 1:
                inner = expansion.collapse(inner)
            total = factor * inner if total is None else total.addcmul(factor, inner)
        series.append(total)
    return series


def second_order(
    expansion: Expansion,
    value: Any,
    slope: Any,
    x: Series,
    curved: Callable[[Tensor, Tensor | None], Tensor] | None,
) -> Series:
    """The series of f(x) to order 2, which Laplacians have: f' x_1, and f' x_2 + f'' x_1 x_1.

    ``curved(squares, second)`` is the latter of the squares and of x_2; None where f'' is zero.
    """
    _, first, second = x
    if slope is None:
        return [value, None, None]
    if first is None or curved is None:
        return [value, *(None if each is None else slope * each for each in (first, second))]
    scaled, squares = expansion.scaled_and_squared(first, slope)
    return [value, scaled, curved(squares, second)]


@functools.cache
def _partitions(things: int, blocks: int) -> list[tuple[int, tuple[int, ...]]]:
    """Sizes of blocks, and in how many ways things are divided into blocks of these sizes."""
    found = []
    for sizes in _sizes(things, blocks, things):
        ways = math.factorial(things)
        for size in set(sizes):
            count = sizes.count(size)
            ways //= math.factorial(size) ** count * math.factorial(count)
        found.append((ways, sizes))
    return found


def _sizes(things: int, blocks: int, most: int) -> Iterator[tuple[int, ...]]:
    if blocks == 0:
        if things == 0:
            yield ()
        return
    for size in range(min(things, most), 0, -1):
        for rest in _sizes(things - size, blocks - 1, size):
            yield size, *rest
