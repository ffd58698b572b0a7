"""Derivatives by a factor that a vmap shares and a transform outside of it differentiates.

The inner transform's backward pass computes with the factor, on a plane below its own.
"""

import pytest
import torch

from functorch_ext import functionalize, grad, hessian, jacfwd, jacrev, vmap
from test.oracle import assert_close

W = torch.tensor([2.0, 3.0], dtype=torch.float64)
WS = torch.stack([W, W + 1, W * 2])
POINTS = torch.tensor([[0.1], [0.2]], dtype=torch.float64)


def network(w, point):
    return (w[:, None] @ point).tanh().pow(3).sum()


def laplacian(w, point):
    return hessian(lambda point: network(w, point))(point).sum()


RESIDUALS = {
    "grad": lambda w, point: grad(network, 1)(w, point)[0],
    "jacrev": lambda w, point: jacrev(network, 1)(w, point)[0],
    "jacfwd": lambda w, point: jacfwd(network, 1)(w, point)[0],
    "hessian": laplacian,
}


def expected(residual, w):
    """One point after another."""
    return sum(grad(lambda w: residual(w, p).pow(2))(w) for p in POINTS)


def loss(residual):
    return lambda w: vmap(lambda point: residual(w, point))(POINTS).pow(2).sum()


@pytest.mark.parametrize("residual", RESIDUALS.values(), ids=RESIDUALS)
def test_shared(residual):
    each = torch.stack([expected(residual, w) for w in WS])
    assert_close(grad(loss(residual))(W), each[0])
    assert_close(grad(functionalize(loss(residual)))(W), each[0])
    assert_close(grad(lambda ws: vmap(loss(residual))(ws).sum())(WS), each)
    assert_close(vmap(grad(loss(residual)))(WS), each)
    ws = WS.clone().requires_grad_()
    assert_close(torch.autograd.grad(vmap(loss(residual))(ws).sum(), ws)[0], each)
