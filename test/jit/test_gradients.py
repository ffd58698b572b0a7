"""Derivatives by what goes into a jitted function, with a compiled backward pass."""

import pytest
import torch
from torch import nn

from functorch_ext import grad, hessian, jit, vmap
from functorch_ext._pytree import leaves_of


def rand(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def network(x, weight, bias):
    return torch.tanh(x @ weight + bias).square()


PROGRAMS = {
    "network": (network, (rand(3, 4), rand(4, 2), rand(2))),
    "two outputs": (lambda x, y: (x * y, x.sin() @ y), (rand(3), rand(3))),
    "an unused input": (lambda x, y: x.sin(), (rand(3), rand(3))),
    "an output without gradient": (lambda x: (x.sin(), x.argmax()), (rand(3),)),
    "the input itself": (lambda x: (x, x * 2), (rand(3),)),
    "a view": (lambda x: x.t()[1:], (rand(3, 2),)),
    "of a gradient": (grad(lambda x: (x.sin() * x).sum()), (rand(3),)),
    "of per-sample gradients": (
        vmap(grad(lambda w, x: (w * x).sin().sum()), (None, 0)),
        (rand(3), rand(5, 3)),
    ),
    "of a hessian": (hessian(lambda x: (x.exp() * x.sum()).sum()), (rand(3),)),
    "detach": (lambda x: x.detach() * x, (rand(3),)),
    "checkpoint of no_grad": (lambda x: x * _constant(x), (rand(3),)),
    "in-place inside": (lambda x: x.clone().mul_(x).add_(1), (rand(3),)),
}


def _constant(x):
    with torch.no_grad():
        return x.cos()


def gradients_of(function, args, seed):
    outputs = [out for out in leaves_of(function(*args)) if out.requires_grad]
    generator = torch.Generator().manual_seed(seed)
    cotangents = [torch.randn(out.shape, dtype=out.dtype, generator=generator) for out in outputs]
    found = torch.autograd.grad(outputs, args, cotangents, allow_unused=True)
    # An input that isn't used may have no gradient, or one of zeros.
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, args)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients(name):
    function, args = PROGRAMS[name]
    fast = jit(function, backend="graph")
    torch.testing.assert_close(leaves_of(fast(*args)), leaves_of(function(*args)))
    for seed in range(2):
        torch.testing.assert_close(
            gradients_of(fast, args, seed), gradients_of(function, args, seed)
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["network", "of per-sample gradients"])
def test_gradients_through_inductor(name):
    function, args = PROGRAMS[name]
    fast = jit(function)
    torch.testing.assert_close(gradients_of(fast, args, 0), gradients_of(function, args, 0))


def test_expanded_cotangents_and_dynamic_sizes():
    function = lambda x: (x.sin() * x).relu()
    fast = jit(function, backend="graph", dynamic=True)
    for size in (3, 6, 8):
        x = rand(size, 2)
        torch.testing.assert_close(
            torch.autograd.grad(fast(x).sum(), x), torch.autograd.grad(function(x).sum(), x)
        )


def test_gradients_by_parameters_of_a_module():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    fast = jit(net, backend="graph")
    x = rand(5, 3)
    inputs = [x, *net.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(fast(x).square().sum(), inputs),
        torch.autograd.grad(net(x).square().sum(), inputs),
    )
