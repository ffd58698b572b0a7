"""Gradients of shared weights for each sample: forms that rules choose by shapes and sizes."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d, group_norm, linear

from functorch_ext import grad, hessian, vmap
from test import oracle
from test.oracle import assert_close, loop


def plain_gradients(function):
    """By the first two arguments, of plain autograd."""

    def gradients(first, second, *others):
        leaves = [x.detach().clone().requires_grad_() for x in (first, second)]
        return torch.autograd.grad(function(*leaves, *others), leaves)

    return gradients


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2)])
def test_group_norm(images, shape):
    torch.manual_seed(0)
    weight, bias = torch.randn(2, 4).double()
    x = torch.randn(3, images, *shape).double()

    def loss(weight, bias, x):
        return group_norm(x, 2, weight, bias).sin().sum()

    in_dims = (None, None, 0)
    want = loop(plain_gradients(loss), in_dims)(weight, bias, x)
    assert_close(vmap(grad(loss, (0, 1)), in_dims)(weight, bias, x), want)
    # By the input as well, and for weights that differ between samples.
    weights = torch.stack([weight, -weight, weight.cos()])
    for in_dims, given in (((None, None, 0), weight), ((0, None, 0), weights)):

        def swapped(weight, x, bias):
            return loss(weight, bias, x)

        dims = (in_dims[0], 0, None)
        want = loop(plain_gradients(swapped), dims)(given, x, bias)
        assert_close(vmap(grad(swapped, (0, 1)), dims)(given, x, bias), want)
    # Derivatives of these gradients: on the same plane, and from outside.
    second = vmap(hessian(lambda w, x: loss(w, bias, x)), (None, 0))(weight, x)
    assert_close(
        second, torch.stack([oracle.hessian(lambda w, x=x: loss(w, bias, x))(weight) for x in x])
    )

    def norm(weight):
        return vmap(grad(loss), (None, None, 0))(weight, bias, x).square().sum()

    def plain_norm(weight):
        rows = [
            torch.autograd.grad(loss(weight, bias, sample), weight, create_graph=True)[0]
            for sample in x
        ]
        return torch.stack(rows).square().sum()

    leaf = weight.clone().requires_grad_()
    (want,) = torch.autograd.grad(plain_norm(leaf), leaf)
    assert_close(grad(norm)(weight), want)


def test_group_norm_of_half_precision():
    norm = nn.GroupNorm(2, 4).bfloat16()
    weight, bias = norm.weight.detach(), norm.bias.detach()
    x = torch.randn(3, 1, 4, 5).bfloat16()

    def loss(weight, bias, x):
        return (group_norm(x, 2, weight, bias).float() ** 3).sum()

    got = vmap(grad(loss, (0, 1)), (None, None, 0))(weight, bias, x)
    want = loop(plain_gradients(loss), (None, None, 0))(weight, bias, x)
    assert_close(got, want, tolerance=0.1)


def test_large_gradients():
    """Their memory is asked for in larger pages."""
    x, weight = torch.randn(3, 8, 1100).double(), torch.randn(700, 1100).double() / 32
    images, kernel = (
        torch.randn(3, 1, 130, 4, 4).double(),
        torch.randn(1100, 130, 3, 3).double() / 32,
    )

    def of_linear(weight, x):
        return linear(x, weight).sin().sum()

    def of_convolution(kernel, images):
        return conv2d(images, kernel, padding=1).sin().sum()

    for loss, args in ((of_linear, (weight, x)), (of_convolution, (kernel, images))):
        want = loop(oracle.grad(loss), (None, 0))(*args)
        assert_close(vmap(grad(loss), (None, 0))(*args), want)


@pytest.mark.parametrize("size", [4, 9, 24])
@pytest.mark.parametrize("channels", [8, 6])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_of_few_and_many_places(size, channels, kernel, stride):
    torch.manual_seed(0)
    x = torch.randn(3, 2, 5, size, size).double()
    weight = torch.randn(channels, 5, kernel, kernel).double()

    def loss(weight, x):
        return conv2d(x, weight, stride=stride, padding=kernel // 2).sin().sum()

    want = loop(oracle.grad(loss), (None, 0))(weight, x)
    assert_close(vmap(grad(loss), (None, 0))(weight, x), want)


@pytest.mark.parametrize("size", [2, 9])
@pytest.mark.parametrize("channels", [8, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {"kernel": 2, "stride": 2},
        {"kernel": 3, "stride": 2, "padding": 1, "output_padding": 1},
        {"kernel": 3, "dilation": 2},
        {"kernel": 1, "stride": 3, "output_padding": 2},
        {"kernel": 3, "padding": 1},
    ],
)
def test_transposed_convolutions(size, channels, settings):
    torch.manual_seed(0)
    settings = dict(settings)
    kernel = settings.pop("kernel")
    x = torch.randn(3, 2, channels, size, size + 1).double()
    weight = torch.randn(channels, 5, kernel, kernel).double()

    def loss(weight, x):
        return conv_transpose2d(x, weight, **settings).sin().sum()

    want = loop(oracle.grad(loss), (None, 0))(weight, x)
    assert_close(vmap(grad(loss), (None, 0))(weight, x), want)


@pytest.mark.parametrize("transposed", [False, True])
def test_many_weights_of_each_sample(transposed):
    """The samples take turns: the values, all gradients, and gradients of these."""
    torch.manual_seed(0)
    x = torch.randn(2, 1, 210, 3, 3).double()
    weight = torch.randn(2, 210, 216, 3, 3).double() / 32
    if not transposed:
        weight = weight.transpose(1, 2).contiguous()

    def call(weight, x):
        return (conv_transpose2d if transposed else conv2d)(x, weight, padding=1)

    def loss(weight, x):
        return call(weight, x).sin().sum()

    assert_close(vmap(call)(weight, x), loop(call)(weight, x))
    want = loop(plain_gradients(loss))(weight, x)
    assert_close(vmap(grad(loss, (0, 1)))(weight, x), want)

    def norm(scale):
        slopes = vmap(grad(loss, (0, 1)))(scale * weight, x)
        return sum(slope.square().sum() for slope in slopes)

    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    total = 0
    for w, sample in zip(scale * weight, x, strict=True):
        leaf = sample.clone().requires_grad_()
        slopes = torch.autograd.grad(loss(w, leaf), (w, leaf), create_graph=True)
        total = total + sum(slope.square().sum() for slope in slopes)
    (want,) = torch.autograd.grad(total, scale)
    assert_close(grad(norm)(scale.detach()), want)


@pytest.mark.parametrize("outer", ["plain autograd", "grad"])
def test_derivatives_of_layer_norm_weight_gradients(outer):
    """By the input, through the statistics as well, which PyTorch takes for constants here."""
    x, weight = torch.randn(5, 3, 4, dtype=torch.double), torch.randn(4, dtype=torch.double)

    def loss(w, y):
        return torch.nn.functional.layer_norm(y, (4,), w).sin().sum()

    def norms(y):
        return vmap(grad(loss), (None, 0))(weight, y).square().sum()

    leaf, parameter = x.clone().requires_grad_(), weight.clone().requires_grad_()
    rows = [torch.autograd.grad(loss(parameter, y), parameter, create_graph=True)[0] for y in leaf]
    (expected,) = torch.autograd.grad(torch.stack(rows).square().sum(), leaf)
    found = grad(norms)(x) if outer == "grad" else torch.autograd.grad(norms(leaf), leaf)[0]
    assert_close(found, expected)
