"""gpytorch: gradients and the hessian of a marginal likelihood by its hyperparameters."""

import pytest
import torch
from torch.autograd import functional

from functorch_ext import functional_call, grad, hessian, jacrev, vmap
from test.libraries.models import marginal_likelihood
from test.oracle import assert_close

pytest.importorskip("gpytorch")
pytestmark = pytest.mark.slow


def test_derivatives_of_a_marginal_likelihood():
    module = marginal_likelihood()
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
