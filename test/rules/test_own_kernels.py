"""Kernels of our own that read memory themselves, in place of PyTorch's operators.

They must compute what PyTorch computes, and must not run where somebody records operators, or
where a tensor's memory isn't the numbers that it stands for.
"""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import conv1d, conv2d, conv3d, max_pool2d

from functorch_ext import grad, vmap

CONVOLUTIONS = {1: conv1d, 2: conv2d, 3: conv3d}


def _weight_gradients(x: Tensor, weight: Tensor, **settings):
    """Of each sample's output, weighted so that all of its places count differently."""
    convolve = CONVOLUTIONS[weight.dim() - 2]

    def loss(weight: Tensor, x: Tensor) -> Tensor:
        return convolve(x, weight, **settings).sin().sum()

    return vmap(grad(loss), (None, 0))(weight, x), torch.stack(
        [torch.autograd.grad(loss(weight, sample), weight)[0] for sample in x]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("x", "weight", "settings"),
    [
        ((3, 2, 9), (4, 2, 3), {}),
        ((3, 2, 6, 7), (5, 2, 3, 3), {"padding": [1], "stride": [2]}),
        ((3, 2, 9, 9), (5, 2, 3, 3), {"dilation": [2]}),
        ((3, 2, 6, 7), (5, 2, 3, 2), {"stride": 2}),
        ((3, 2, 6, 7), (8, 2, 3, 3), {"padding": 1}),
        ((3, 2, 6, 7), (8, 2, 1, 1), {}),
        ((3, 1, 20, 20), (3, 1, 13, 14), {"padding": (2, 0)}),
        ((3, 2, 9, 8), (5, 2, 3, 2), {"dilation": (1, 2)}),
        ((3, 2, 9, 8), (5, 2, 3, 3), {"dilation": (2, 1), "stride": (1, 2), "padding": (0, 2)}),
        ((3, 4, 2, 6, 7), (5, 2, 3, 2), {"stride": 2}),
        ((3, 2, 4, 5, 6), (5, 2, 2, 3, 2), {"padding": (1, 0, 1)}),
    ],
)
def test_the_gradients_of_a_convolutions_weight(x, weight, settings, dtype):
    x = torch.randn(x, dtype=dtype)
    weight = torch.randn(weight, dtype=dtype, requires_grad=True)
    ours, loop = _weight_gradients(x, weight, **settings)
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(ours, loop, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stride", [1, 2, (1, 2), (2, 1), (1, 3)])
@pytest.mark.parametrize("kernel", [1, 2, 3, (2, 3), (7, 11)])
def test_the_largest_numbers_and_their_places(kernel, stride, dtype):
    """The first of equal numbers counts, and what isn't a number is the largest of all."""
    x = torch.randint(5, (6, 3, 7, 11)).to(dtype)
    x[2, 1, ::3, ::4] = torch.nan
    x[3] = -torch.inf
    pool = lambda x: max_pool2d(x, kernel, stride, return_indices=True)
    for actual, expected in zip(vmap(pool)(x), pool(x), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float8_e4m3fn])
def test_convolution_refuses_the_dtypes_that_pytorch_refuses(dtype):
    x, cotangent = torch.ones(3, 1, 2, 6, 6).to(dtype), torch.ones(3, 1, 5, 4, 4).to(dtype)
    weight = torch.ones(5, 2, 3, 3).to(dtype)

    def gradient(cotangent, x):
        settings = [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False]
        return torch.ops.aten.convolution_backward(cotangent, x, weight, None, *settings)[1]

    with pytest.raises(RuntimeError, match="not implemented"):
        gradient(cotangent[0], x[0])
    with pytest.raises(RuntimeError, match="not implemented"):
        vmap(gradient)(cotangent, x)


@pytest.mark.parametrize(
    ("sample", "arguments"),
    [
        ((2, 2, 2, 4, 4), (2,)),
        ((5, 5), (2,)),
        ((3, 4, 4), ((2, 2, 2),)),
        ((3, 4, 4), (2, (1, 2, 3))),
        ((3, 4, 4), (2, 1, (0, 0, 0))),
    ],
)
def test_pooling_refuses_what_pytorch_refuses(sample, arguments):
    x = torch.randn(9, *sample)
    with pytest.raises(RuntimeError):
        max_pool2d(x[0], *arguments)
    with pytest.raises(RuntimeError):
        vmap(lambda x: max_pool2d(x, *arguments))(x)


def test_more_samples_than_one_piece_of_memory_takes():
    x = torch.randn(20, 8, 20, 20, dtype=torch.float64)
    weight = torch.randn(24, 8, 6, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(*_weight_gradients(x, weight, stride=2))


def test_channels_that_lie_innermost():
    x = torch.randn(3, 2, 7, 7).to(memory_format=torch.channels_last)
    weight = torch.randn(5, 2, 3, 3, requires_grad=True)
    torch.testing.assert_close(*_weight_gradients(x, weight))


def _pooled(x: Tensor) -> Tensor:
    return max_pool2d(x, 2)


def _gradients(x: Tensor) -> Tensor:
    weight = torch.linspace(-1, 1, 5 * 2 * 3 * 3).view(5, 2, 3, 3)
    return grad(lambda weight: conv2d(x, weight).sin().sum())(weight)


@pytest.mark.parametrize("func", [_pooled, _gradients])
def test_a_trace_computes_with_other_numbers(func):
    x, y = torch.randn(2, 8, 2, 6, 6)
    mapped = vmap(func)
    torch.testing.assert_close(make_fx(mapped)(x)(y), torch.stack([func(each) for each in y]))


@pytest.mark.parametrize("func", [_pooled, _gradients])
def test_fake_tensors_have_no_numbers(func):
    expected = vmap(func)(torch.zeros(8, 2, 6, 6)).shape
    with FakeTensorMode():
        assert vmap(func)(torch.zeros(8, 2, 6, 6)).shape == expected


@pytest.mark.parametrize("func", [_pooled, _gradients])
def test_a_view_of_negated_numbers(func):
    x = torch.randn(8, 2, 6, 6, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    torch.testing.assert_close(vmap(func)(x), torch.stack([func(each) for each in x]))
