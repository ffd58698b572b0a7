"""Linear algebra on stacks of matrices: samples that bring batch dimensions of their own.

PyTorch aligns the batch dimensions of several matrices from the right, so one sample's (3, 2, 2)
and (2, 1) become, with the samples in front, (B, 3, 2, 2) and (B, 1, 2, 1), not (B, 2, 1).
"""

import itertools

import pytest
import torch

from functorch_ext import vmap
from test.oracle import assert_close, loop, rand

BATCH = 3  # as many samples as matrices in a stack: a dimension taken for another goes unnoticed


def positive_definite(*shape):
    matrix = rand(*shape)
    return matrix @ matrix.mT + 3 * torch.eye(shape[-1], dtype=torch.float64)


def lower(*shape):
    return positive_definite(*shape).tril()


SOLVERS = {
    "solve": (torch.linalg.solve, positive_definite),
    "solve_triangular": (lambda a, b: torch.linalg.solve_triangular(a, b, upper=False), lower),
    "triangular_solve": (lambda a, b: torch.triangular_solve(b, a, upper=False)[0], lower),
    "cholesky_solve": (lambda a, b: torch.cholesky_solve(b, a), lower),
    "lu_solve": (
        lambda a, b: torch.linalg.lu_solve(*torch.linalg.lu_factor(a), b),
        positive_definite,
    ),
    "ldl_solve": (
        lambda a, b: torch.linalg.ldl_solve(*torch.linalg.ldl_factor(a), b),
        positive_definite,
    ),
}
STACKS = [
    ((3, 2, 2), (3, 2, 1)),
    ((3, 2, 2), (1, 2, 1)),
    ((3, 2, 2), (2, 1)),
    ((2, 2), (3, 2, 1)),
    ((4, 2, 2), (2, 1)),
    ((2, 2), (4, 2, 1)),
]


def check(function, *makers):
    """vmap against the loop, for every choice of batched arguments."""
    for batched in itertools.product([True, False], repeat=len(makers)):
        if any(batched):
            in_dims = tuple(0 if mapped else None for mapped in batched)
            args = [
                torch.stack([make() for _ in range(BATCH)]) if mapped else make()
                for make, mapped in zip(makers, batched, strict=True)
            ]
            expected = loop(function, in_dims)(*args)
            assert_close(vmap(function, in_dims)(*args), expected, message=f"in_dims={in_dims}")


@pytest.mark.parametrize("stacks", STACKS)
@pytest.mark.parametrize("name", SOLVERS)
def test_solvers(name, stacks):
    function, make = SOLVERS[name]
    check(function, lambda: make(*stacks[0]), lambda: rand(*stacks[1]))


@pytest.mark.parametrize("hermitian", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)])
def test_tolerances(shape, hermitian):
    """Each tolerance (a share of the largest singular value) drops some of the singular values."""

    def truncated_inverse(matrix, tolerance):
        matrix = matrix @ matrix.mT if hermitian else matrix
        return torch.linalg.pinv(matrix, rtol=tolerance, hermitian=hermitian)

    check(
        truncated_inverse,
        lambda: rand(2, 3, 4, 4),
        lambda: 0.05 + 0.6 * torch.rand(shape, dtype=torch.float64),
    )


@pytest.mark.parametrize("tolerance", [None, 0.1])
def test_tolerances_that_all_samples_share(tolerance):
    check(lambda x: torch.linalg.pinv(x, rtol=tolerance), lambda: rand(4, 3, 3))


@pytest.mark.parametrize("shape", [(2, 2), (3, 3, 3), (2, 3, 3, 3)])
def test_matrix_exp_of_samples_that_are_not_at_the_front(shape):
    x = rand(*shape, BATCH)
    assert_close(vmap(torch.matrix_exp, -1)(x), loop(torch.matrix_exp, -1)(x))
