"""Linear equations of implicit derivatives: hard ones are solved, and those that aren't raise."""

import pytest
import torch

from functorch_ext import grad, hessian, implicit_root, jacfwd, jit, jvp, vmap
from functorch_ext._linear_solvers import conjugate_gradients, gmres
from test.oracle import assert_close, rand

SOLVERS = {"gmres": gmres, "cg": conjugate_gradients}
START = torch.ones(()).double()


def square_root(linear_solver):
    """Has no derivative at 0."""
    residual = lambda x, a: x**2 - a
    return implicit_root(residual, linear_solver)(lambda x, a: a.sqrt())


UNSOLVED = {
    "grad": lambda f: grad(f, 1)(START, START * 0),
    "jvp": lambda f: jvp(lambda a: f(START, a), (START * 0,), (START,)),
    "vmap of grad": lambda f: vmap(grad(f, 1), (None, 0))(START, torch.tensor([1.0, 0.0]).double()),
    "jacfwd of vmap": lambda f: jacfwd(lambda a: vmap(f, (None, 0))(START, a))(rand(3) * 0),
    "vmap of vmap": lambda f: vmap(vmap(grad(f, 1), (None, 0)), (None, 0))(START, rand(2, 3) * 0),
}


@pytest.mark.parametrize("linear_solver", SOLVERS)
@pytest.mark.parametrize("name", UNSOLVED)
def test_a_singular_point_raises(name, linear_solver):
    message = f"no solution that linear_solver='{linear_solver}' could find: it came to a residual "
    with pytest.raises(RuntimeError, match=message + r"of 1.0e\+00 .* the tolerance is 2.2e-15"):
        UNSOLVED[name](square_root(linear_solver))


@pytest.mark.parametrize("linear_solver", SOLVERS)
def test_a_sample_without_numbers_leaves_others_alone(linear_solver):
    points = torch.tensor([1.0, torch.nan, 4.0]).double()
    found = vmap(grad(square_root(linear_solver), 1), (None, 0))(START, points)
    assert_close(found, torch.tensor([0.5, torch.nan, 0.25]).double())
    assert grad(square_root(linear_solver), 1)(START, START * torch.inf).isnan()


def test_more_vectors_where_restarts_keep_it_from_converging():
    b = rand(2, 100)
    shifted = lambda v: v.roll(1)  # each product of the first is orthogonal to all others
    assert_close(gmres(shifted, b[0]), b[0].roll(-1))
    assert_close(vmap(lambda b: gmres(shifted, b))(b), b.roll(-1, 1))
    matrix = torch.linalg.qr(rand(300, 300))[0]
    assert_close(gmres(lambda v: matrix @ v, matrix @ matrix[0]), matrix[0], 1e-12)


def test_what_the_dtype_resolves_is_a_solution():
    matrix = torch.diag(torch.logspace(0, -6, 20).double())
    orthogonal = torch.linalg.qr(rand(20, 20))[0]
    matrix = orthogonal @ matrix @ orthogonal.mT
    b, calls = rand(20), []
    found = gmres(lambda v: calls.append(None) or matrix @ v, b)
    assert_close(found / found.norm(), torch.linalg.solve(matrix, b) / found.norm(), 1e-8)
    assert len(calls) < 100  # it doesn't go on for a residual that can't be had
    with pytest.raises(RuntimeError, match="what torch.float32 can resolve"):
        gmres(lambda v: matrix.float() @ v, b.float())


@pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e30])
def test_any_magnitude(solve, size):
    matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    b = torch.tensor([1.0, 2.0]) * size
    assert_close(solve(lambda v: matrix @ v, b) / size, torch.tensor([0.2, 0.6]), 1e-3)
    found = vmap(lambda b: solve(lambda v: matrix @ v, b))(b[None])
    assert_close(found[0] / size, torch.tensor([0.2, 0.6]), 1e-3)


@pytest.mark.parametrize("linear_solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, linear_solver):
    points = torch.tensor([1.0, 4.0], dtype=dtype)
    root = square_root(linear_solver)
    assert_close(grad(root, 1)(START.to(dtype), points[1]), torch.tensor(0.25, dtype=dtype))
    assert_close(vmap(grad(root, 1), (None, 0))(START.to(dtype), points), 0.5 / points.sqrt())


def test_a_definite_map_may_be_negative_but_must_be_symmetric():
    matrix = rand(5, 5)
    negative = -matrix @ matrix.mT - torch.eye(5)
    b = rand(5)
    assert_close(conjugate_gradients(lambda v: negative @ v, b), torch.linalg.solve(negative, b))
    with pytest.raises(RuntimeError, match="symmetric and definite: for another, .*'gmres'"):
        conjugate_gradients(lambda v: v.roll(1), b)


def test_a_solver_of_ones_own_as_the_message_gives_it():
    dense = lambda matvec, b: torch.linalg.solve(jacfwd(matvec)(b), b)
    root = implicit_root(lambda x, a: x**3 - a, dense)(lambda x, a: a ** (1 / 3))
    a = rand(3).abs() + 1
    of = lambda a: root(torch.ones_like(a), a).sin().sum()
    plain = lambda a: (a ** (1 / 3)).sin().sum()
    assert_close(hessian(of)(a), hessian(plain)(a), 1e-12)
    assert_close(vmap(hessian(of))(a), vmap(hessian(plain))(a), 1e-12)


def test_jit_says_that_values_are_read():
    with pytest.raises(RuntimeError, match="the function reads the value of a tensor"):
        jit(grad(square_root("gmres"), 1))(START, START)
