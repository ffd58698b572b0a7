"""Solutions of ``matvec(x) = b`` for a linear map that is known by its products alone."""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

from functorch_ext import _C

Map = Callable[[Tensor], Tensor]


def number(tensor: Tensor) -> Any:
    """One of Python's where no vmap runs: to compute with it takes less."""
    return tensor if _C.running_level() else tensor.item()


def all_true(flag: Tensor | bool) -> bool:
    """Is it true of every sample of every vmap that runs?"""
    if isinstance(flag, bool):
        return flag
    plain = _C.below_all_levels(flag)
    return bool(plain if plain.dim() == 0 else plain.all())


def gmres(matvec: Map, b: Tensor, restart: int = 30, max_restarts: int = 20) -> Tensor:
    """The generalized minimal residual method, for any invertible map of vectors.

    Source: Y. Saad, M. Schultz, "GMRES", SIAM J. Sci. Stat. Comput. 7, 1986.
    """
    eps = torch.finfo(b.dtype).eps
    scale = number(vector_norm(b))
    steps = min(restart, b.numel())
    x, residual, size = torch.zeros_like(b), b, scale
    for _ in range(max_restarts):
        if all_true(size <= 10 * eps * scale):
            break
        # What is less than that is rounding.
        hessenberg, basis = _arnoldi(matvec, residual, size, steps, 4 * eps * scale)
        # The space may be exhausted before the last step: then columns are noise, or zeros.
        weights = torch.linalg.pinv(hessenberg, rtol=10 * eps)[:, 0] * size
        x = x + weights @ basis
        residual = b - matvec(x)
        size = number(vector_norm(residual))
    return x


def _arnoldi(
    matvec: Map, vector: Tensor, size: Any, steps: int, goal: Any
) -> tuple[Tensor, Tensor]:
    """Orthonormal rows V, the first along the vector, and H: ``A V[i] = sum_j H[j, i] V[j]``.

    There are so many steps at most. It ends once a combination of the ``A V[i]`` leaves no more
    than the goal of the vector.
    """
    first = _unit(vector, size)
    vectors = torch.empty(steps + 1, len(first), dtype=first.dtype, device=first.device)
    vectors[0] = first
    make = _ColumnsOfSamples if _C.running_level() else _Columns
    columns = make(size / goal)
    for step in range(1, steps + 1):
        known = vectors[:step]
        w = matvec(known[-1])
        along = known.conj() @ w
        w = torch.addmv(w, known.mT, along, alpha=-1)
        again = known.conj() @ w  # against cancellation
        w = torch.addmv(w, known.mT, again, alpha=-1)
        length = number(vector_norm(w))
        if columns.add(along, again, length) or step == steps:
            break
        vectors[step] = _unit(w, length)
    return columns.matrix(first), known


class _Columns:
    """The matrix H of Arnoldi's method while it grows, on the host: its numbers are few.

    It takes a vector to zero, of which each column gives one more element. The least residual is to
    what it was in the beginning as the first element is to all of them.

    Source: E. Ayachour, "A fast implementation for GMRES method", J. Comput. Appl. Math. 159, 2003.
    """

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._columns: list[list[complex]] = []
        self._null: list[complex] = [1.0]

    def add(self, along: Tensor, again: Tensor, length: float) -> bool:
        """Whether the residual is by the factor less than it was."""
        column = [*map(operator.add, along.tolist(), again.tolist()), length]
        self._columns.append(column)
        product = sum(map(operator.mul, self._null, column))
        # The space is exhausted at a length of 0.
        self._null.append(-product / length if length else math.inf)
        return not math.hypot(*map(abs, self._null)) < self._factor

    def matrix(self, like: Tensor) -> Tensor:
        rows = len(self._null)
        padded = [[*column, *[0.0] * (rows - len(column))] for column in self._columns]
        return torch.tensor(padded, dtype=like.dtype, device=like.device).mT


class _ColumnsOfSamples:
    """The same for the samples of vmaps, in tensors."""

    def __init__(self, factor: Tensor) -> None:
        self._factor = factor
        self._columns: list[Tensor] = []
        self._null: Tensor | None = None

    def add(self, along: Tensor, again: Tensor, length: Tensor) -> bool:
        """Whether the residual is by the factor less than it was, of all samples."""
        if self._null is None:
            self._null = torch.ones_like(along)
        along = along + again
        self._columns.append(torch.cat([along, length[None]]))
        self._null = torch.cat([self._null, (self._null @ along / -length)[None]])
        # It is infinite, or no number, of samples whose space is exhausted.
        return all_true(~(vector_norm(self._null) < self._factor))

    def matrix(self, like: Tensor) -> Tensor:
        rows = len(self._columns) + 1
        pad = torch.nn.functional.pad
        return torch.stack([pad(each, (0, rows - len(each))) for each in self._columns], 1)


def conjugate_gradients(matvec: Map, b: Tensor, max_steps: int | None = None) -> Tensor:
    """The method of conjugate gradients, for a Hermitian positive definite map of vectors.

    Source: M. Hestenes, E. Stiefel, J. Res. Nat. Bur. Standards 49, 1952.
    """
    goal = (10 * torch.finfo(b.dtype).eps * b.norm()) ** 2
    x, residual, direction = torch.zeros_like(b), b, b
    size = torch.linalg.vecdot(b, b).real
    for _ in range(10 * b.numel() if max_steps is None else max_steps):
        runs = size > goal
        if all_true(~runs):
            break
        image = matvec(direction)
        curvature = torch.linalg.vecdot(direction, image).real
        length = torch.where(runs, size / torch.where(runs, curvature, 1), 0)
        x = x + length * direction
        residual = residual - length * image
        new = torch.linalg.vecdot(residual, residual).real
        direction = residual + torch.where(runs, new / torch.where(runs, size, 1), 0) * direction
        size = torch.where(runs, new, size)
    return x


def _unit(vector: Tensor, length: Any) -> Tensor:
    if isinstance(length, float):
        return vector / length if length else vector
    return vector / length.clamp(min=torch.finfo(length.dtype).tiny)
