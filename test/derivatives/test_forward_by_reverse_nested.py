"""Derivatives of third and fourth order where forward mode is made of reverse mode: a backward pass
runs again what an inner one ran with the vectors of a basis, or of a vmap, that is gone.

The oracle is PyTorch's own reverse mode, nested, row by row.
"""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import hessian, jacfwd, jacrev, vjp, vmap
from test.releases import from_release

pytestmark = [
    pytest.mark.filterwarnings("ignore:index_reduce"),
    pytest.mark.filterwarnings("ignore:Default grid_sample"),
]
INDEX = torch.tensor([0, 1, 1])


def reduced(reduce):
    return lambda x: (x.index_reduce(0, INDEX, (x * 2).sin().flip(0), reduce) ** 3).sin()[:2, 0]


def sampled(x):
    return F.grid_sample((x * x.sin())[None, None], x.tanh().reshape(1, 1, 3, 2)).flatten()[:2]


FUNCTIONS = {"amax": reduced("amax"), "mean": reduced("mean"), "grid_sample": sampled}
FUNCTIONS = from_release((2, 12), FUNCTIONS, "grid_sample")  # differentiated twice


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


def inputs(count=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, 2, generator=generator, dtype=torch.float64)


def plain(function):
    return lambda x: torch.autograd.functional.jacobian(function, x, create_graph=True)


def squares(jacobian, function):
    return lambda x: jacobian(function)(x).square().sum()


def by_vmap(function):
    basis = torch.eye(2, dtype=torch.float64)
    return lambda x: vmap(vjp(function, x)[1])(basis)[0]


@pytest.mark.parametrize(
    "third",
    [
        lambda f: jacfwd(jacrev(jacrev(f))),  # both bases are of the same depth
        lambda f: jacfwd(jacrev(by_vmap(f))),
        lambda f: jacfwd(jacfwd(jacrev(f))),
        lambda f: jacfwd(jacrev(jacfwd(f))),
    ],
    ids=["frr", "frv", "ffr", "frf"],
)
def test_third_order(function, third):
    (x,) = inputs()
    torch.testing.assert_close(third(function)(x), plain(plain(plain(function)))(x))


def test_hessian_of_a_jacobian(function):
    xs = inputs(2)
    expected = torch.stack([plain(plain(squares(plain, function)))(x) for x in xs])
    of_a_sample = hessian(squares(jacrev, function))
    torch.testing.assert_close(of_a_sample(xs[0]), expected[0])
    torch.testing.assert_close(vmap(of_a_sample)(xs), expected)


def test_hessian_of_a_jacobian_through_a_pullback(function):
    def pulled(x):
        y = function(x)
        return vjp(lambda y: y.sin() * y, y)[1](y)[0]

    def expanded(x):
        y = function(x)
        return y * (y.sin() + y * y.cos())

    (x,) = inputs()
    expected = plain(plain(squares(plain, expanded)))(x)
    torch.testing.assert_close(hessian(squares(jacrev, pulled))(x), expected)
