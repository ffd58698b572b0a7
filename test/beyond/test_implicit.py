"""Derivatives of solutions, against those of closed forms and of plain autograd."""

import pytest
import torch

from functorch_ext import (
    fixed_point,
    grad,
    hessian,
    implicit_root,
    jacfwd,
    jacrev,
    jvp,
    vjp,
    vmap,
)
from functorch_ext._linear_solvers import conjugate_gradients, gmres
from test.oracle import assert_close, loop, rand

LOOSE = 1e-7


@implicit_root(lambda x, a, b: x**3 + a * x - b)
def cubic(x, a, b):
    """A root of a cubic, whose derivatives have a closed form."""
    for _ in range(100):
        x = x - (x**3 + a * x - b) / (3 * x**2 + a)
    return x


def cardano(a, b):
    """The same for a > 0, as a formula."""
    half = (b**2 / 4 + a**3 / 27).sqrt()
    first, second = b / 2 + half, b / 2 - half
    return first.abs() ** (1 / 3) * first.sign() + second.abs() ** (1 / 3) * second.sign()


A, B = rand(4).abs() + 1, rand(4) * 2
V, W = rand(4), rand(4)


def root(a, b):
    return cubic(torch.ones_like(b), a, b)


COMPOSITIONS = {
    "call": lambda f: f(A, B),
    "grad": lambda f: grad(lambda a, b: f(a, b).sin().sum(), argnums=(0, 1))(A, B),
    "jvp": lambda f: jvp(f, (A, B), (V, W)),
    "vjp": lambda f: vjp(f, A, B)[1](V),
    "jacrev": lambda f: jacrev(f)(A, B),
    "jacfwd": lambda f: jacfwd(f, argnums=1)(A, B),
    "hessian": lambda f: hessian(lambda a, b: f(a, b).sum(), argnums=(0, 1))(A, B),
    "jacrev jacrev": lambda f: jacrev(jacrev(f))(A, B),
    "grad of jvp": lambda f: grad(lambda a: jvp(f, (a, B), (V, W))[1].sum())(A),
    "vmap": lambda f: vmap(f)(A, B),
    "vmap of grad": lambda f: vmap(grad(f, argnums=(0, 1)))(A, B),
    "vmap of hessian": lambda f: vmap(hessian(f))(A, B),
    "grad of vmap": lambda f: grad(lambda b: vmap(f)(A, b).sin().sum())(B),
    "jvp of vmap": lambda f: jvp(vmap(f), (A, B), (V, W)),
    "vmap of jvp": lambda f: vmap(lambda a, b, v: jvp(lambda b: f(a, b), (b,), (v,)))(A, B, V),
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_root(name):
    assert_close(COMPOSITIONS[name](root), COMPOSITIONS[name](cardano), LOOSE)


MATRIX = 0.3 * torch.linalg.qr(rand(5, 5))[0]
X = rand(3, 5)


def layer(z, tree):
    return torch.tanh(z @ tree["w"] + tree["x"])


def equilibrium(tree):
    return fixed_point(layer, torch.zeros(5).double(), tree)


def unrolled(tree):
    z = torch.zeros(5).double()
    for _ in range(60):
        z = layer(z, tree)
    return z


def test_a_deep_equilibrium_model():
    def loss(model, w, x):
        return model({"w": w, "x": x}).sin().sum()

    tree = {"w": MATRIX, "x": X[0]}
    assert_close(equilibrium(tree), unrolled(tree), LOOSE)
    for transform in (
        lambda f: grad(f, argnums=(0, 1))(MATRIX, X[0]),
        lambda f: vmap(grad(f), (None, 0))(MATRIX, X),
        lambda f: grad(lambda w: vmap(f, (None, 0))(w, X).sum())(MATRIX),
        lambda f: hessian(f, argnums=1)(MATRIX, X[0]),
        lambda f: jvp(lambda w: f(w, X[0]), (MATRIX,), (MATRIX.mT.contiguous(),)),
    ):
        results = [
            transform(lambda w, x, model=model: loss(model, w, x))
            for model in (equilibrium, unrolled)
        ]
        assert_close(*results, LOOSE)


def test_samples_stop_when_the_last_has_converged():
    scales = torch.tensor([0.1, 0.5, 0.95]).double()
    solved = lambda a: fixed_point(lambda x, a: a * x.cos(), torch.ones(()).double(), a)
    assert_close(vmap(solved)(scales), loop(solved)(scales), LOOSE)


def test_containers_constants_and_a_symmetric_system():
    matrix = rand(4, 4)
    matrix = matrix @ matrix.mT + torch.eye(4)

    @implicit_root(lambda x, a, b, n: {"x": a @ x["x"] * n - b}, linear_solver="cg")
    def solve(init, a, b, n):
        return {"x": torch.linalg.solve(a * n, b)}

    b = rand(4)
    init = {"x": torch.zeros(4).double()}
    got = grad(lambda a, b: solve(init, a, b, 2)["x"].prod(), argnums=(0, 1))(matrix, b)
    plain = grad(lambda a, b: torch.linalg.solve(a * 2, b).prod(), argnums=(0, 1))
    assert_close(got, plain(matrix, b), LOOSE)
    guess = {"x": rand(4).requires_grad_()}
    assert grad(lambda x: solve(x, matrix, b, 2)["x"].sum())(guess)["x"].abs().sum() == 0


def test_no_fixed_point():
    with pytest.raises(RuntimeError, match="no fixed point was found in 7 steps"):
        fixed_point(lambda x: 2 * x, torch.ones(()), max_steps=7)
    mapped = vmap(lambda a: fixed_point(lambda x, a: a * x + 1, torch.ones(()), a))
    with pytest.raises(RuntimeError, match="no fixed point was found"):
        mapped(torch.tensor([0.1, 2.0]))  # one of them grows beyond all numbers
    with pytest.raises(RuntimeError, match="must return the structure and the shapes of init"):
        fixed_point(lambda x: (x, x), torch.ones(3))
    with pytest.raises(RuntimeError, match=r"residual must return the shapes of the root, \[\(4,"):
        grad(lambda a: implicit_root(lambda x, a: (x - a).sum())(lambda x, a: a)(A, a).sum())(A)
    with pytest.raises(ValueError, match="linear_solver must be 'gmres', 'cg' or"):
        implicit_root(lambda x: x, linear_solver="lu")


@pytest.mark.parametrize("size", [1, 4, 50])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_linear_solvers(size, dtype):
    matrix = torch.eye(size, dtype=dtype) * 3 + rand(size, size, dtype=dtype) / size**0.5
    b = rand(2, size, dtype=dtype)
    assert_close(gmres(lambda v: matrix @ v, b[0]), torch.linalg.solve(matrix, b[0]), LOOSE)
    solve = lambda b: gmres(lambda v: matrix @ v, b)
    assert_close(vmap(solve)(b), torch.linalg.solve(matrix, b.mT).mT, LOOSE)
    assert_close(solve(b[0] * 0), b[0] * 0)
    definite = matrix @ matrix.mH
    solve = lambda b: conjugate_gradients(lambda v: definite @ v, b)
    assert_close(vmap(solve)(b), torch.linalg.solve(definite, b.mT).mT, LOOSE)
    assert_close(solve(b[0] * 0), b[0] * 0)


def test_a_space_that_is_exhausted_early():
    projection = torch.diag(torch.tensor([1.0, 1.0, 2.0, 2.0, 2.0], dtype=torch.float64))
    b = rand(5)
    assert_close(gmres(lambda v: projection @ v, b), b / projection.diagonal(), LOOSE)


def test_no_more_products_than_it_takes():
    size, calls = 200, []
    matrix = torch.eye(size).double() + 0.01 * torch.linalg.qr(rand(size, size))[0]
    scales = torch.cat([torch.full((100,), 3.0), torch.full((100,), 2.0)]).double()

    def counted(apply):
        return lambda v: calls.append(None) or apply(v)

    for apply in (lambda v: scales * v, lambda v: matrix @ v):
        b = rand(3, size)
        calls.clear()
        found = gmres(counted(apply), b[0])
        assert_close(apply(found), b[0], LOOSE)
        assert len(calls) < 12
        calls.clear()
        found = vmap(lambda b: gmres(counted(apply), b))(b)
        assert_close(vmap(apply)(found), b, LOOSE)
        assert len(calls) < 12
