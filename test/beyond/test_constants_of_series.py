"""What cuts derivatives cuts those that jet and laplacian carry."""

import pytest
import torch

from functorch_ext import hessian, jet, jvp, laplacian, stop_gradient

x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

FUNCTIONS = {
    "detach": lambda x: (x.detach() * x**2).sum(),
    "detach of a result": lambda x: ((x.sin()).detach() * x.exp()).sum(),
    "stop_gradient": lambda x: (stop_gradient(x) * x**2).sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_laplacian_is_the_trace_of_the_hessian(name):
    func = FUNCTIONS[name]
    torch.testing.assert_close(laplacian(func)(x), hessian(func)(x).trace())


def test_jet_is_jvp():
    func = lambda x: (x.detach() * x).sum()
    _, (first, second) = jet(func, (x,), ([torch.ones_like(x), torch.zeros_like(x)],))
    torch.testing.assert_close(first, jvp(func, (x,), (torch.ones_like(x),))[1])
    torch.testing.assert_close(second, torch.zeros_like(second))
