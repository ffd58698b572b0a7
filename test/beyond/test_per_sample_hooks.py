"""Hooks of parameters get the gradient of each sample, as in a loop over the samples."""

import pytest
import torch
from torch import nn

from functorch_ext import clipped_grad_sum, jit, per_sample_grad_norms, per_sample_grads
from test.oracle import assert_close, rand

MASK = rand(128, 128) > 0


def tied(activation=nn.Tanh):
    first, second = nn.Linear(128, 128).double(), nn.Linear(128, 128).double()
    second.weight = first.weight
    return nn.Sequential(first, activation(), second)


def masked():
    model = tied()
    model[0].weight = nn.Parameter(rand(128, 128))
    model[2].weight.register_hook(lambda gradient: gradient * MASK)
    return model


def masked_where_it_is_tied():
    model = tied()
    model[0].weight.register_hook(lambda gradient: gradient * MASK)
    return model


def several_that_arent_linear():
    model = tied(nn.ReLU)
    model[2].bias.register_hook(lambda gradient: gradient / gradient.norm())
    model[2].bias.register_hook(lambda gradient: gradient + 1)
    model[0].bias.register_hook(lambda gradient: None)
    return model


def loss(output, targets):
    return (output - targets).square().sum()


def loop(model, batch, targets):
    """The gradients of the samples, and their norms."""
    parameters = dict(model.named_parameters())
    samples = []
    for i in range(len(batch)):
        model.zero_grad()
        loss(model(batch[i : i + 1]), targets[i : i + 1]).backward()
        samples.append({name: each.grad.clone() for name, each in parameters.items()})
    gradients = {name: torch.stack([each[name] for each in samples]) for name in parameters}
    norms = sum(each.flatten(1).square().sum(1) for each in gradients.values()).sqrt()
    return gradients, norms


@pytest.mark.parametrize("make", [masked, masked_where_it_is_tied, several_that_arent_linear])
def test_hooks_of_parameters(make):
    model, batch, targets = make(), rand(3, 128), rand(3, 128)
    gradients, norms = loop(model, batch, targets)
    for decorate in (lambda f: f, lambda f: jit(f, backend="graph")):
        assert_close(decorate(per_sample_grads(model, loss))(batch, targets), gradients)
        assert_close(decorate(per_sample_grad_norms(model, loss))(batch, targets), norms)
        found = decorate(clipped_grad_sum(model, loss, 1.0))(batch, targets)
        scales = (1 / norms).clamp(max=1)
        assert_close(found, {k: torch.tensordot(scales, x, 1) for k, x in gradients.items()})
