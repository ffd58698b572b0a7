"""Custom functions whose backward differentiates again, by parameters that a closure knows too.

So do adjoint solvers: the backward calls the function that the forward was given, and asks
``torch.autograd.grad`` for gradients by the parameters that were saved.
"""

import pytest
import torch
from torch.autograd import functional

from functorch_ext import grad, jacrev, vjp, vmap
from test.custom_functions.functions import Adjoint
from test.oracle import assert_close, rand

pytestmark = pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")


class KeptOnCtx(Adjoint):
    """The parameters are attributes of ctx instead of arguments."""

    @staticmethod
    def forward(ctx, func, x, *parameters):
        ctx.func, ctx.parameters = func, parameters
        ctx.save_for_backward(x)
        return func(x)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return None, *torch.autograd.grad(ctx.func(x), (x, *ctx.parameters), cotangent)


LAYER = torch.nn.Linear(3, 3, dtype=torch.float64)
WEIGHTS = list(LAYER.parameters())
XS = rand(4, 3)


def plain(x):
    return torch.tanh(LAYER(x))


def total(x):
    return plain(x).square().sum()


KINDS = {
    "saved": lambda x: Adjoint.apply(plain, x, *WEIGHTS),
    "kept on ctx": lambda x: KeptOnCtx.apply(plain, x, *WEIGHTS),
    "of a result": lambda x: Adjoint.apply(plain, x, *WEIGHTS) * WEIGHTS[1] / WEIGHTS[1].detach(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_samples(kind):
    energy = lambda x: KINDS[kind](x).square().sum()
    expected = torch.stack([functional.jacobian(total, x) for x in XS])
    assert_close(vmap(grad(energy))(XS), expected)
    assert_close(vmap(grad(energy), chunk_size=3)(XS), expected)
    assert_close(vmap(vmap(grad(energy)))(XS.view(2, 2, 3)).view(4, 3), expected)
    assert_close(grad(lambda xs: vmap(energy)(xs).sum())(XS), expected)
    assert_close(
        grad(lambda xs: vmap(vmap(energy))(xs).sum())(XS.view(2, 2, 3)).view(4, 3), expected
    )
    inside = lambda x: torch.autograd.grad(energy(x), x)[0]
    assert_close(vmap(lambda x: inside(x.clone().requires_grad_()))(XS), expected)


@pytest.mark.parametrize("kind", ["saved", "kept on ctx"])
def test_jacobians_of_samples(kind):
    expected = torch.stack([functional.jacobian(plain, x) for x in XS])
    assert_close(vmap(jacrev(KINDS[kind]))(XS), expected)
    assert_close(vmap(jacrev(KINDS[kind], chunk_size=2))(XS), expected)
    whole = jacrev(vmap(KINDS[kind]))(XS)
    assert_close(torch.stack([whole[i, :, i] for i in range(4)]), expected)
    rows = torch.stack([x @ jacobian for x, jacobian in zip(XS, expected, strict=True)])
    assert_close(vmap(lambda x: vjp(KINDS[kind], x)[1](x)[0])(XS), rows)


@pytest.mark.parametrize("kind", ["saved", "of a result"])
def test_gradients_by_the_parameters(kind):
    energy = lambda x: KINDS[kind](x).square().sum()
    expected = torch.autograd.grad(sum(energy(x) for x in XS), WEIGHTS)
    assert_close(torch.autograd.grad(vmap(energy)(XS).sum(), WEIGHTS), expected)
    in_two = vmap(vmap(energy))(XS.view(2, 2, 3)).sum()
    assert_close(torch.autograd.grad(in_two, WEIGHTS), expected)


def test_parameters_that_are_arguments():
    def energy(weight, x):
        return Adjoint.apply(lambda x: torch.tanh(weight @ x), x, weight).square().sum()

    def of_sample(x):
        weight = WEIGHTS[0].detach().requires_grad_()
        return torch.autograd.grad(torch.tanh(weight @ x).square().sum(), weight)[0]

    expected = torch.stack([of_sample(x) for x in XS])
    weight = WEIGHTS[0].detach()
    assert_close(vmap(grad(energy), (None, 0))(weight, XS), expected)
    assert_close(vmap(grad(energy))(weight.expand(4, 3, 3), XS), expected)
    nested = vmap(vmap(grad(energy), (None, 0)), (None, 0))(weight, XS.view(2, 2, 3))
    assert_close(nested.view(4, 3, 3), expected)
    summed = grad(lambda weight: vmap(energy, (None, 0))(weight, XS).sum())(weight)
    assert_close(summed, expected.sum(0))
