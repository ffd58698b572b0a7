"""Fake quantization with a scale for each channel needs no loop, whatever is batched."""

import warnings

import pytest
import torch

from functorch_ext import FallbackWarning, grad, vmap
from test.oracle import assert_close, loop


def quantized(x, scale, zero_point, axis=1):
    return torch.fake_quantize_per_channel_affine(x, scale, zero_point, axis, -8, 7)


def learnt(x, scale, zero_point, axis=1):
    return torch._fake_quantize_learnable_per_channel_affine(x, scale, zero_point, axis, -8, 7, 0.5)


@pytest.fixture(autouse=True)
def no_loops():
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        yield


@pytest.mark.parametrize("in_dims", [(0, None, None), (1, 0, 0), (None, 0, 0), (2, 0, None)])
@pytest.mark.parametrize("function", [quantized, learnt])
def test_as_in_a_loop(function, in_dims):
    sizes = [2, 3, 4]
    if in_dims[0] is not None:
        sizes.insert(in_dims[0], 5)
    scale = torch.rand((3,) if in_dims[1] is None else (5, 3)) + 0.1
    zero_point = torch.zeros((3,) if in_dims[2] is None else (5, 3))
    arguments = (torch.randn(sizes) * 3, scale, zero_point)
    assert_close(vmap(function, in_dims)(*arguments), loop(function, in_dims)(*arguments), 1e-6)

    by = (0,) if function is quantized else (0, 1)  # scales are constants, if they aren't learnt

    def gradients(x, scale, zero_point):
        leaves = [each.clone().requires_grad_() for each in (x, scale)[: len(by)]]
        total = function(*leaves, *(x, scale, zero_point)[len(by) :]).sin().sum()
        return torch.autograd.grad(total, leaves)

    total = lambda *arguments: function(*arguments).sin().sum()
    actual = vmap(grad(total, argnums=by), in_dims)(*arguments)
    assert_close(actual, loop(gradients, in_dims)(*arguments), 1e-5)


@pytest.mark.parametrize("samples", [0, 1])
def test_few_samples(samples):
    result = vmap(quantized, (0, None, None))(
        torch.ones(samples, 2, 3), torch.ones(3), torch.zeros(3)
    )
    assert torch.equal(result, torch.ones(samples, 2, 3))
