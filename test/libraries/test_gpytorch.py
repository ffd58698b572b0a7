"""gpytorch: gradients and the hessian of a marginal likelihood by its hyperparameters."""

import pytest
import torch
from torch.autograd import functional

from functorch_ext import functional_call, grad, hessian, jacrev, vmap
from test.oracle import assert_close

gpytorch = pytest.importorskip("gpytorch")
pytestmark = pytest.mark.slow


class Process(gpytorch.models.ExactGP):
    def __init__(self, x, y, likelihood):
        super().__init__(x, y, likelihood)
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


class Loss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.x = torch.linspace(0, 1, 6, dtype=torch.float64)
        self.y = torch.sin(6 * self.x)
        likelihood = gpytorch.likelihoods.GaussianLikelihood()
        self.process = Process(self.x, self.y, likelihood).double().train()
        self.likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, self.process)

    def forward(self):
        return -self.likelihood(self.process(self.x), self.y)


def test_derivatives_of_a_marginal_likelihood():
    module = Loss()
    names = [name for name, _ in module.named_parameters()]
    values = tuple(p.detach() for p in module.parameters())
    loss = lambda *values: functional_call(module, dict(zip(names, values, strict=True)), ())
    every = tuple(range(len(values)))

    gradient = functional.jacobian(loss, values)
    assert_close(grad(loss, every)(*values), gradient)
    expected = functional.hessian(loss, values)
    assert_close(hessian(loss, every)(*values), expected)
    assert_close(jacrev(jacrev(loss, every), every)(*values), expected)

    stacks = tuple(torch.stack([value, value + 0.1, value - 0.2]) for value in values)
    gradients = vmap(grad(loss, every))(*stacks)
    for i in range(3):
        one = functional.jacobian(loss, tuple(stack[i] for stack in stacks))
        assert_close(tuple(each[i] for each in gradients), one)
