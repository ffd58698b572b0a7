"""Errors of wrong arguments name them; what was taken for others, or failed without a word."""

import pytest
import torch

from functorch_ext import (
    all_gather,
    grad,
    pmax,
    pmean,
    pmin,
    ppermute,
    psum,
    sparse_hessian,
    sparse_jacobian,
    vhp,
    vmap,
)
from test.oracle import rand

X = rand(4, 3)
send = lambda perm: vmap(lambda x: ppermute(x, "b", perm), axis_name="b")(X)


@pytest.mark.parametrize("perm", [[(0, 1, 2)], [0, 1], [(0.5, 1)], [("a", 0)], None, 3])
def test_permutations(perm):
    with pytest.raises(TypeError, match="ppermute: perm must"):
        send(perm)


def test_permutations_of_other_integers():
    expected = torch.stack([X[0] * 0, X[0], X[0] * 0, X[0] * 0])
    for perm in ([[0, 1]], [(torch.tensor(0), torch.tensor(1))], iter([(0, 1)])):
        assert torch.equal(send(perm), expected)


@pytest.mark.parametrize("name", ["value", "grad"])
def test_no_samples(name):
    collectives = [psum, pmean, pmax, pmin, all_gather, lambda x, axis: ppermute(x, axis, [])]
    for collective in collectives:
        func = lambda x, collective=collective: collective(x, "b").sum()
        func = func if name == "value" else grad(func)
        assert vmap(func, axis_name="b")(X[:0]).shape[0] == 0
    assert vmap(lambda x: pmax(x, "b"), axis_name="b")(X[:0]).shape == (0, 3)


def test_a_name_twice():
    with pytest.raises(ValueError, match=r"grad: argnames must be different ones, but \('w', 'w'"):
        grad(lambda w: w.sum(), argnames=("w", "w"))(w=X)


def test_integers_for_vhp():
    with pytest.raises(RuntimeError, match="vhp: only Tensors of floating point dtype"):
        vhp(lambda x: x.sum())(torch.arange(3), torch.ones(3))


@pytest.mark.parametrize("transform", [sparse_jacobian, sparse_hessian])
def test_sparse(transform):
    name = transform.__name__
    with pytest.raises(TypeError, match=f"{name}: expected pattern to be a tensor, .* got a list"):
        transform(lambda x: x.sum(), pattern=[[1]])(X[0])
    with pytest.raises(TypeError, match=f"{name}: expected arguments .* unhashable type: 'set'"):
        transform(lambda x, names: x.sum())(X[0], {1})
