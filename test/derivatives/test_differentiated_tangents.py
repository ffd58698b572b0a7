"""Derivatives by a tangent: of forward mode over reverse mode, by the direction that it takes."""

import pytest
import torch

from functorch_ext import grad, jacfwd, jacrev, jvp, vjp, vmap
from test.oracle import assert_close

X = torch.tensor([1.0, 2.0], dtype=torch.float64)
T = torch.tensor([0.5, 0.3], dtype=torch.float64)


def f(x):
    return (x**3).sum()


def along(v):
    """The Hessian at T times v: 6 T v."""
    return jvp(grad(f), (T,), (v,))[1]


USES = {
    "grad": lambda: grad(lambda v: along(v).sum())(X),
    "vjp": lambda: vjp(along, X)[1](torch.ones_like(X))[0],
    "jacrev": lambda: jacrev(along)(X).diagonal(),
    "jacfwd": lambda: jacfwd(along)(X).diagonal(),
    "vmap(grad)": lambda: vmap(grad(lambda v: along(v).sum()))(X.expand(3, 2))[1],
    "grad(vmap)": lambda: grad(lambda v: vmap(along)(v).sum())(X.expand(3, 2))[1],
    "jvp(jacrev)": lambda: grad(
        lambda v: jvp(jacrev(lambda x: x**3), (T,), (v,))[1].sum()
    )(X),
}  # fmt: skip


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_by_the_direction(use):
    assert_close(use(), 6 * T)


def test_by_plain_autograd_outside():
    direction = X.clone().requires_grad_()
    assert_close(torch.autograd.grad(along(direction).sum(), direction)[0], 6 * T)


def test_by_several_arguments():
    energy = lambda x, t: (x**2 * t**2).sum()
    total = lambda v: jvp(grad(energy, 1), (v, T), (T, v))[1].sum()

    def expected(v):  # the mixed second derivative times T, and the one by t twice times v
        return (4 * v * T * T + 2 * v**2 * v).sum()

    v = X.clone().requires_grad_()
    assert_close(grad(total)(X), torch.autograd.grad(expected(v), v)[0])


def test_nothing_is_kept():
    assert not along(X).requires_grad
    assert not jvp(grad(f), (T,), (X,))[0].requires_grad
