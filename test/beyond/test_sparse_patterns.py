"""Detected patterns: sparse Jacobians and Hessians are the dense ones, at any point."""

import pytest
import torch
from torch.nn import functional as F

from functorch_ext import sparse_hessian, sparse_jacobian
from test.oracle import assert_close, rand

N = 12
INDEX = torch.tensor([3, 1, 1, 7])
STENCIL = torch.diag(torch.full((N,), -2.0)) + torch.diag(torch.ones(N - 1), 1)
MATRIX, KERNEL = STENCIL.double(), torch.tensor([[[1.0, 2.0, 3.0]]]).double()


def written(x):
    y = torch.zeros_like(x)
    y[1:] = x[:-1] ** 2
    y[0] += x[3]
    return y


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent.flip(0)


# Functions of 12 numbers, and how many entries their pattern has where detection is exact.
FUNCTIONS = {
    "pointwise": (lambda x: x.sin() * x, N),
    "slices": (lambda x: x[1:] * x[:-1], 2 * (N - 1)),
    "strided": (lambda x: x[::3] ** 2, 4),
    "select": (lambda x: x[3] * x[5], 2),
    "roll": (lambda x: x.roll(1) * x.sin(), 2 * N),
    "flip": (lambda x: x.flip(0) * x, 2 * N),
    "index": (lambda x: x[INDEX] ** 3, 4),
    "gather": (lambda x: x.gather(0, INDEX) * x[:4], None),
    "cat": (lambda x: torch.cat([x[:3], x[4:].cos()]).square(), N - 1),
    "stack": (lambda x: torch.stack([x[:6], x[6:]]).prod(0), N),
    "where a constant": (lambda x: torch.where(torch.arange(N) < 4, x, x.flip(0)), N),
    "where a value": (lambda x: torch.where(x > 0, x.roll(2), x.roll(1)), 2 * N),
    "rows' sums": (lambda x: x.view(3, 4).square().sum(1), N),
    "columns' means": (lambda x: x.view(3, 4).exp().mean(0, keepdim=True), N),
    "sum": (lambda x: x.square().sum(), N),
    "normalized": (lambda x: x / x.norm(), None),
    "softmax": (lambda x: x.view(4, 3).softmax(1), 3 * N),
    "cumsum": (lambda x: x.view(4, 3).cumsum(1), None),
    "largest": (lambda x: x.view(4, 3).amax(1), N),
    "sorted": (lambda x: x.sort().values, None),
    "matrix of constants": (lambda x: MATRIX @ x.sin(), 2 * N - 1),
    "matrix on the right": (lambda x: x.view(1, N) @ MATRIX, 2 * N - 1),
    "product of rows": (lambda x: x[:6].view(2, 3) @ x[6:].view(3, 2), 24),
    "linear": (lambda x: F.linear(x.view(3, 4), MATRIX[:2, :4]), None),
    "einsum": (lambda x: torch.einsum("ij,jk->ik", x.view(3, 4), MATRIX[:4, :4]), None),
    "conv1d": (lambda x: F.conv1d(x[None, None] ** 2, KERNEL, padding=1), 3 * N - 2),
    "strided conv1d": (lambda x: F.conv1d(x.view(1, 1, N), KERNEL, stride=2, dilation=2), None),
    "conv_transpose1d": (lambda x: F.conv_transpose1d(x.view(1, 2, 6), KERNEL[[0, 0]]), None),
    "grouped conv1d": (lambda x: F.conv1d(x.view(1, 2, 6), KERNEL[[0, 0]], groups=2), None),
    "unfold": (lambda x: x.unfold(0, 3, 1).prod(1), 3 * (N - 2)),
    "pad": (lambda x: F.pad(x, (1, 1))[2:] * x[:N], None),
    "circular": (lambda x: F.pad(x[None], (1, 1), mode="circular"), N + 2),
    "tril": (lambda x: x.view(3, 4).tril(), 6),
    "diagonal": (lambda x: x[:9].view(3, 3).diagonal() ** 2, 3),
    "scatter": (lambda x: torch.zeros(N).double().index_add(0, INDEX, x[:4] ** 2), 4),
    "writes": (written, None),
    "detached": (lambda x: x * x.sum().detach(), N),
    "masked by constants": (lambda x: x * (torch.arange(N) < 4), 4),
    "through a custom backward": (StraightThrough.apply, N),
    "norm of a layer": (lambda x: F.layer_norm(x.view(4, 3), (3,)), None),
    "interpolated": (lambda x: F.interpolate(x[None, None], scale_factor=2), None),
    "inverse": (lambda x: torch.linalg.inv(x[:9].view(3, 3)), None),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jacobian(name):
    function, entries = FUNCTIONS[name]
    jacobian = sparse_jacobian(function)
    for _ in range(3):  # the first pattern serves all points
        x = rand(N)
        dense = torch.autograd.functional.jacobian(function, x)
        assert_close(jacobian(x).to_dense(), dense.reshape(-1, N), message=name)
    if entries is not None:
        assert jacobian.indices(x).shape == (2, entries)


ENERGIES = {
    "chain": (lambda x: ((x[1:] - x[:-1]) ** 4).sum(), 3),
    "pairs": (lambda x: (x.view(6, 2).prod(1) ** 2).sum(), 2),
    "arrow": (lambda x: (x[0] * x[1:] ** 2).sum(), 2),
    "separable": (lambda x: (x.sin() * x).sum(), 1),
    "linear": (lambda x: x.sum(), 1),
    "squared sum": (lambda x: x.sum() ** 2, N),
    "ring": (lambda x: (x.roll(1) * x).sum(), None),
    "grid": (lambda x: _differences(x.view(3, 4)), None),
    "convolution": (lambda x: F.conv1d(x[None, None], KERNEL).pow(3).sum(), None),
    "network": (lambda x: torch.tanh(x.view(3, 4) @ MATRIX[:4, :4]).pow(2).sum(), None),
    "indexed": (lambda x: (x[INDEX] ** 3 * x[:4]).sum(), None),
    "logsumexp": (lambda x: x.view(4, 3).logsumexp(1).sum(), None),
}


def _differences(x):
    return ((x[1:] - x[:-1]) ** 4).sum() + ((x[:, 1:] - x[:, :-1]) ** 4).sum()


@pytest.mark.parametrize("name", ENERGIES)
def test_hessian(name):
    function, products = ENERGIES[name]
    matrix = sparse_hessian(function)
    for _ in range(3):
        x = rand(N)
        dense = torch.autograd.functional.hessian(function, x)
        assert_close(matrix(x).to_dense(), dense, message=name)
    if products is not None:
        assert matrix.products(x) == products


def test_an_operator_without_a_rule_mixes_everything():
    function = lambda x: x.view(3, 4).sort(1).values
    jacobian = sparse_jacobian(function)
    x = rand(N)
    assert jacobian.indices(x).shape[1] >= 3 * 4 * 4
    dense = torch.autograd.functional.jacobian(function, x).reshape(-1, N)
    assert_close(jacobian(x).to_dense(), dense)
