"""functionalize around derivatives of what writes to an argument besides what it computes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from functorch_ext import functional_call, functionalize, grad, jvp, vmap
from test.oracle import assert_close, rand

REMOVE = pytest.mark.parametrize("remove", ["mutations", "mutations_and_views"])


@REMOVE
@pytest.mark.parametrize("track", [True, False])
def test_batch_norm_in_training(remove, track):
    network = nn.Sequential(
        nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=track), nn.Tanh(), nn.Linear(3, 2)
    ).double()
    x = rand(6, 4)

    def loss(parameters, buffers, x):
        once = functional_call(network, (parameters, buffers), (x,))
        return (once * functional_call(network, (parameters, buffers), (x.sin(),))).sum()

    found = []
    for transform in (grad(loss), functionalize(grad(loss), remove=remove)):
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        parameters = {name: value.detach() for name, value in network.named_parameters()}
        found.append((transform(parameters, buffers, x), buffers))
    assert_close(found[1], found[0])


@REMOVE
def test_rrelu_in_training(remove):
    def gradient(x):
        return grad(lambda x: F.rrelu(x, training=True).square().sum())(x)

    x = rand(20)
    torch.manual_seed(0)
    expected = gradient(x)
    torch.manual_seed(0)
    assert_close(functionalize(gradient, remove=remove)(x), expected)


@REMOVE
def test_a_saved_tensor_that_is_overwritten_is_noticed(remove):
    def function(x):
        y = x * 1
        z = y.sin()
        y.mul_(2)
        return z.sum()

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        functionalize(grad(function), remove=remove)(rand(3))


def scaled(x):
    return x.clone().mul_(2).sin()


def part_scaled(x):
    y = x.clone()
    y.view(-1)[1:3].mul_(3)
    return y


def halved(x):
    return 1 / x.clone().div_(2).add_(1.5)


@REMOVE
@pytest.mark.parametrize("function", [scaled, part_scaled, halved])
def test_numbers_of_the_program_and_tangents(function, remove):
    """Single precision, in which numbers are cast ahead of the operator."""
    x = torch.randn(3, 5)
    derivative = lambda x: jvp(function, (x,), (x.cos(),))
    assert_close(functionalize(derivative, remove=remove)(x), derivative(x))
    assert_close(vmap(functionalize(derivative, remove=remove))(x), vmap(derivative)(x))
