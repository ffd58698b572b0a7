"""What the functions of each sample's gradient say of arguments that they can't take."""

import functools

import pytest
import torch
from torch import nn

from functorch_ext import clipped_grad_sum, per_sample_grad_norms, per_sample_grads

FUNCTIONS = {
    "per_sample_grads": per_sample_grads,
    "per_sample_grad_norms": per_sample_grad_norms,
    "clipped_grad_sum": functools.partial(clipped_grad_sum, max_norm=1.0),
}
MODEL = nn.Linear(2, 1)
each_function = pytest.mark.parametrize("name", FUNCTIONS)


def loss(output, targets):
    return (output - targets).square().sum()


@each_function
def test_models_and_losses(name):
    with pytest.raises(TypeError, match=f"{name}: the model must be a torch.nn.Module"):
        FUNCTIONS[name](lambda x: x, loss)
    with pytest.raises(TypeError, match=f"{name}: loss_fn must be a function"):
        FUNCTIONS[name](MODEL, None)


@each_function
@pytest.mark.parametrize("chunk_size", [None, 2, "1 MiB"])
def test_numbers_of_samples_that_differ(name, chunk_size):
    gradients = FUNCTIONS[name](MODEL, loss, chunk_size=chunk_size)
    for sizes in ((3, 4), (4, 3), (3, 0)):
        data = [torch.ones(size, width) for size, width in zip(sizes, (2, 1), strict=True)]
        with pytest.raises(ValueError, match=f"{name}: the batch has {sizes[0]} samples and"):
            gradients(*data)
        with pytest.raises(ValueError, match=rf"{name}: .* but have \[{sizes[0]}, {sizes[1]}, "):
            gradients((data[0], torch.ones(sizes[1], 2)), torch.ones(sizes[0], 1))


@each_function
@pytest.mark.parametrize("targets", [None, 1.0, torch.ones(())])
def test_targets_without_samples(name, targets):
    with pytest.raises(ValueError, match=f"{name}: targets must be a tensor with the samples"):
        FUNCTIONS[name](MODEL, loss)(torch.ones(3, 2), targets)


@pytest.mark.parametrize("max_norm", ["1", None, 0, float("nan")])
def test_norms(max_norm):
    with pytest.raises((TypeError, ValueError), match="clipped_grad_sum: .*max_norm .*positive"):
        clipped_grad_sum(MODEL, loss, max_norm)


@each_function
def test_nothing_to_train(name):
    found = FUNCTIONS[name](nn.Linear(2, 1).requires_grad_(False), loss)(
        torch.ones(3, 2), torch.ones(3, 1)
    )
    assert torch.equal(found, torch.zeros(3)) if isinstance(found, torch.Tensor) else found == {}
