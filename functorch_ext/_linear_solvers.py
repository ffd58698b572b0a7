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
    if not isinstance(flag, Tensor):
        return bool(flag)  # while a program is traced it is a symbol
    plain = _C.below_all_levels(flag)
    return bool(plain if plain.dim() == 0 else plain.all())


def _any_true(flag: Tensor | bool) -> bool:
    return bool(_C.below_all_levels(flag).any() if isinstance(flag, Tensor) else flag)


def _chosen(flag: Tensor | bool, yes: Any, no: Any) -> Any:
    if not isinstance(flag, Tensor):
        return yes if flag else no
    return torch.where(flag, yes, no)


# Of the vectors that a restart may keep, where more of them are needed than usual.
_MOST_ELEMENTS = 2**22


def gmres(matvec: Map, b: Tensor, restart: int = 30, max_restarts: int = 100) -> Tensor:
    """The generalized minimal residual method, for any invertible map of vectors.

    Restarts may keep it from converging: they come later where it doesn't, and at last not at all.

    Source: Y. Saad, M. Schultz, "GMRES", SIAM J. Sci. Stat. Comput. 7, 1986.
    """
    if b.numel() == 0:
        return b.clone()
    b, factor = _scaled(b)
    eps = torch.finfo(b.dtype).eps
    scale = number(vector_norm(b))
    goal = 10 * eps * scale
    steps, most = min(restart, b.numel()), min(b.numel(), max(restart, _MOST_ELEMENTS // b.numel()))
    x, residual, size, stretch = torch.zeros_like(b), b, scale, 0 * scale
    for _ in range(max_restarts):
        if not _any_true(size > goal):
            break
        # What is less than that is rounding.
        hessenberg, basis = _arnoldi(matvec, residual, size, steps, 0.4 * goal)
        longest = number(vector_norm(hessenberg, dim=0).amax())
        stretch = _chosen(longest > stretch, longest, stretch)
        moved = x + (_least_squares(hessenberg) * size).to(b.dtype) @ basis
        left = b - matvec(moved)
        before, after = size, number(vector_norm(left))
        worse = after >= before
        x, residual = _chosen(worse, x, moved), _chosen(worse, residual, left)
        size = _chosen(worse, before, after)
        slow = (after > 0.5 * before) & (size > goal)
        if _any_true(slow):
            slow = slow & (size > _limit(x, scale, stretch))
            if not _any_true(slow):
                break
            if steps == most and _any_true(slow & (after > 0.9 * before)):
                break
            steps = min(2 * steps, most)
    return _checked("gmres", x, size, scale, stretch) * factor


def _scaled(b: Tensor) -> tuple[Tensor, Tensor]:
    """The vector without its magnitude, whose squares neither vanish nor overflow; and that."""
    largest = b.abs().amax()
    usable = (largest > 0) & (largest < math.inf)
    factor = torch.where(usable, largest, 1)
    return b / factor, factor


def _limit(x: Tensor, scale: Any, stretch: Any) -> Any:
    """The largest residual that is a matter of rounding alone.

    That of the product is by the map's norm times the length of x. What remains is about as much of
    b as the error is of x, of which some digits must be right.
    """
    eps = torch.finfo(x.dtype).eps
    rounding = 100 * eps * (scale + stretch * number(vector_norm(x)))
    most = eps**0.25 * scale
    return _chosen(rounding < most, rounding, most)


def _checked(name: str, x: Tensor, size: Any, scale: Any, stretch: Any) -> Tensor:
    """The solution, if the residual is small. NaNs that were given stay NaNs."""
    limit = _limit(x, scale, stretch)
    if _any_true(size > limit):
        worst = _worst(size / scale)
        eps = torch.finfo(x.dtype).eps
        raise RuntimeError(
            "functorch_ext.implicit_root: the linear equations of an implicit derivative have no "
            f"solution that linear_solver={name!r} could find: it came to a residual of "
            f"{worst:.1e} of the right-hand side's norm, where the tolerance is {10 * eps:.1e}, or "
            f"what {x.dtype} can resolve. {_ADVICE[name]}"
        )
    if not isinstance(size, Tensor):
        return x if size < math.inf else x + math.nan
    return torch.where(size < math.inf, x, math.nan)


def _worst(ratios: Any) -> float:
    if not isinstance(ratios, Tensor):
        return float(ratios)
    return float(_C.below_all_levels(ratios).nan_to_num(0).max())


_ADVICE = {
    "gmres": "At a singular point, where the derivative of the equation by the solution isn't "
    "invertible, there is no derivative. Where it nearly is, take float64, and solve to a smaller "
    "tolerance. Or give a linear_solver of your own: solver(matvec, b) returns the solution, for "
    "example lambda matvec, b: torch.linalg.solve(jacfwd(matvec)(b), b) for a small one.",
    "cg": "It is for a derivative of the equation by the solution that is symmetric and definite: "
    "for another, take linear_solver='gmres'. Where that is nearly singular, take float64.",
}


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


def _least_squares(hessenberg: Tensor) -> Tensor:
    """The combination of the columns of H that is nearest to the first unit vector."""
    precise = hessenberg.to(torch.promote_types(hessenberg.dtype, torch.float32))
    finite = torch.where(precise.isfinite().all(), precise, 0)
    # The space may be exhausted before the last step: then columns are noise, or zeros.
    return torch.linalg.pinv(finite, rtol=10 * torch.finfo(precise.dtype).eps)[:, 0]


def conjugate_gradients(matvec: Map, b: Tensor, max_steps: int | None = None) -> Tensor:
    """The method of conjugate gradients, for a Hermitian definite map of vectors.

    Source: M. Hestenes, E. Stiefel, J. Res. Nat. Bur. Standards 49, 1952.
    """
    if b.numel() == 0:
        return b.clone()
    b, factor = _scaled(b)
    goal = 10 * torch.finfo(b.dtype).eps * vector_norm(b)
    x, residual, direction = torch.zeros_like(b), b, b
    size = torch.linalg.vecdot(b, b).real
    for _ in range(10 * b.numel() if max_steps is None else max_steps):
        runs = size > goal**2
        if not _any_true(runs):
            break
        image = matvec(direction)
        curvature = torch.linalg.vecdot(direction, image).real
        moves = runs & (curvature != 0)
        length = torch.where(moves, size / torch.where(moves, curvature, 1), 0)
        x = x + length * direction
        residual = residual - length * image
        new = torch.linalg.vecdot(residual, residual).real
        direction = residual + torch.where(runs, new / torch.where(runs, size, 1), 0) * direction
        size = torch.where(runs, new, size)
    left = vector_norm(b - matvec(x))
    stretch = _norm_of_hermitian(matvec, b) if _any_true(left > goal) else torch.zeros_like(goal)
    return _checked("cg", x, left, vector_norm(b), stretch) * factor


def _norm_of_hermitian(matvec: Map, vector: Tensor) -> Tensor:
    """About, by the power method."""
    for _ in range(10):
        vector = matvec(_unit(vector, vector_norm(vector)))
    return vector_norm(vector)


def _unit(vector: Tensor, length: Any) -> Tensor:
    if isinstance(length, float):
        return vector / length if length else vector
    return vector / length.clamp(min=torch.finfo(length.dtype).tiny)
