"""Integers among arguments and outputs, and outputs of another precision than the input."""

import torch

from functorch_ext import custom_vmap, grad, hessian, jacfwd, jvp, sparse_jacobian, vmap
from test.oracle import assert_close, rand

X, NUMBERS = rand(5), torch.arange(5)


@custom_vmap
def scaled(x, numbers):
    return x * numbers, numbers + 1


@scaled.def_vmap
def rule(size, in_batched, x, numbers):
    return (x * numbers, numbers + 1), (in_batched[0] or in_batched[1], in_batched[1])


def test_custom_vmap():
    first = lambda x: scaled(x * x, NUMBERS)[0]
    plain = lambda x: x * x * NUMBERS
    summed = lambda f: lambda x: f(x).sum()
    assert_close(grad(summed(first))(X), grad(summed(plain))(X))
    assert_close(jvp(first, (X,), (X,)), jvp(plain, (X,), (X,)))
    assert_close(hessian(summed(first))(X), hessian(summed(plain))(X))
    assert_close(jacfwd(jacfwd(first))(X), jacfwd(jacfwd(plain))(X))
    of_sample = lambda x, number: scaled(x * x, number)[0]
    assert_close(vmap(grad(of_sample))(X, NUMBERS), 2 * X * NUMBERS)
    assert_close(grad(lambda x: vmap(of_sample)(x, NUMBERS).sum())(X), 2 * X * NUMBERS)


def test_sparse_jacobians_of_another_precision():
    for convert in (torch.Tensor.float, torch.Tensor.double):
        for x in (X, X.float()):
            func = lambda x, convert=convert: convert(x) * x.roll(1)
            assert_close(sparse_jacobian(func)(x).to_dense(), jacfwd(func)(x), 1e-6)
            func = lambda x, convert=convert: convert(x) * convert(x.roll(1))
            assert_close(sparse_jacobian(func)(x).to_dense(), jacfwd(func)(x), 1e-6)
