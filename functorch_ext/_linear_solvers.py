"""Solutions of ``matvec(x) = b`` for a linear map that is known by its products alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from functorch_ext import _C

Map = Callable[[Tensor], Tensor]


def all_true(flag: Tensor) -> bool:
    """Is it true of every sample of every vmap that runs?"""
    return bool(_C.below_all_levels(flag).all())


def gmres(matvec: Map, b: Tensor, restart: int = 30, max_restarts: int = 20) -> Tensor:
    """The generalized minimal residual method, for any invertible map of vectors.

    Source: Y. Saad, M. Schultz, "GMRES", SIAM J. Sci. Stat. Comput. 7, 1986.
    """
    eps = torch.finfo(b.dtype).eps
    goal = 10 * eps * b.norm()
    steps = min(restart, b.numel())
    x, residual = torch.zeros_like(b), b
    for _ in range(max_restarts):
        size = residual.norm()
        if all_true(size <= goal):
            break
        basis = [_unit(residual, size)]
        columns = []
        for step in range(steps):
            w = matvec(basis[-1])
            column = torch.zeros(steps + 1, dtype=b.dtype, device=b.device)
            for _ in range(2):  # once more, against cancellation
                known = torch.stack(basis)
                along = known.conj() @ w
                w = w - along @ known
                column = column + torch.nn.functional.pad(along, (0, steps - step))
            length = w.norm()
            place = torch.zeros_like(column)
            place[step + 1] = 1
            columns.append(column + length * place)
            basis.append(_unit(w, length))
        hessenberg = torch.stack(columns, 1)
        # The space may be exhausted before `steps`: then the last columns are noise, or zeros.
        weights = torch.linalg.pinv(hessenberg, rtol=10 * eps)[:, 0] * size
        x = x + weights @ torch.stack(basis[:-1])
        residual = b - matvec(x)
    return x


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


def _unit(vector: Tensor, length: Tensor) -> Tensor:
    return vector / torch.where(length > 0, length, 1)
