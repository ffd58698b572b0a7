"""Weights of mixed derivatives: any matrix, of any dtype."""

import pytest
import torch

from functorch_ext import grad, hessian, jacfwd, laplacian, vmap
from test.oracle import assert_close, rand


def func(x):
    return x.prod() + x.sin().sum() ** 2


def weighted(x, weights, f=func):
    return (hessian(f)(x) * weights).sum()


X, WEIGHTS = rand(4), rand(4, 4)


def test_a_matrix_that_isnt_symmetric():
    assert_close(laplacian(func, weights=WEIGHTS)(X), weighted(X, WEIGHTS))
    of = lambda x, w: laplacian(func, weights=w)(x)
    batch = torch.stack([WEIGHTS, WEIGHTS.mT, WEIGHTS + 1])
    assert_close(vmap(of, (None, 0))(X, batch), vmap(weighted, (None, 0))(X, batch))
    assert_close(grad(of)(X, WEIGHTS), grad(weighted)(X, WEIGHTS), 1e-8)
    assert_close(grad(of, 1)(X, WEIGHTS), grad(weighted, 1)(X, (WEIGHTS + WEIGHTS.mT) / 2), 1e-8)


def test_dtypes():
    whole = torch.arange(16).reshape(4, 4)
    assert_close(laplacian(func, weights=whole)(X), weighted(X, whole))
    single = WEIGHTS.float()
    assert_close(laplacian(func, weights=single)(X), weighted(X, single), 1e-5)
    assert_close(laplacian(func, weights=WEIGHTS)(X.float()), weighted(X.float(), single), 1e-4)
    z = X + 1j * rand(4)
    holomorphic = lambda z: (z**3).sum() * z.prod()
    expected = (jacfwd(jacfwd(holomorphic))(z) * WEIGHTS).sum()
    assert_close(laplacian(holomorphic, weights=WEIGHTS)(z), expected)
    with pytest.raises(ValueError, match="expected real weights, but got torch.complex128"):
        laplacian(func, weights=WEIGHTS + 1j)(X)
