"""Evenly spaced numbers between tensors: the derivative by the bounds isn't lost."""

import pytest
import torch

from functorch_ext import grad, hessian, jacfwd, jacrev, jvp, vmap
from test.oracle import assert_close, rand

STEPS = 5
WEIGHTS = torch.linspace(0, 1, STEPS, dtype=torch.float64)

SPACED = {
    "linspace": (
        lambda a, b: torch.linspace(a, b, STEPS, dtype=torch.float64),
        lambda a, b: a * (1 - WEIGHTS) + b * WEIGHTS,
    ),
    "linspace from a number": (
        lambda a, b: a * torch.linspace(1.0, b, STEPS, dtype=torch.float64),
        lambda a, b: a * (1 - WEIGHTS + b * WEIGHTS),
    ),
    "logspace": (
        lambda a, b: torch.logspace(a, b, steps=STEPS, base=2.0, dtype=torch.float64),
        lambda a, b: 2.0 ** (a * (1 - WEIGHTS) + b * WEIGHTS),
    ),
}
TRANSFORMS = {
    "grad": lambda f: grad(lambda a, b: f(a, b).square().sum(), (0, 1)),
    "jvp": lambda f: lambda a, b: jvp(f, (a, b), (b, a)),
    "jacrev": lambda f: jacrev(f, (0, 1)),
    "jacfwd": lambda f: jacfwd(f, (0, 1)),
    "hessian": lambda f: hessian(lambda a, b: f(a, b).square().sum(), (0, 1)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", SPACED)
def test_by_the_bounds(name, transform):
    spaced, formula = SPACED[name]
    a, b = rand(3), rand(3)
    wrap = TRANSFORMS[transform]
    assert_close(wrap(spaced)(a[0], b[0]), wrap(formula)(a[0], b[0]))
    assert_close(vmap(wrap(spaced))(a, b), vmap(wrap(formula))(a, b))


def test_integers_have_none():
    def f(a):
        return (torch.linspace(a, 9.0, 3, dtype=torch.int64) * a).sum()

    assert grad(f)(torch.tensor(1.0)) == 15


def test_wrong_arguments_get_pytorchs_error():
    with pytest.raises(TypeError, match="linspace"):
        grad(lambda a: torch.linspace(a, "x", 3).sum())(torch.tensor(1.0))
    with pytest.raises(RuntimeError, match="non-negative"):
        grad(lambda a: torch.linspace(a, 1.0, -3).sum())(torch.tensor(1.0))
