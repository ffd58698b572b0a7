"""Batches without samples and inputs without elements, in chunks and whole."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from functorch_ext import (
    clipped_grad_sum,
    divergence,
    hessian,
    hessian_diag,
    jacfwd,
    jacrev,
    laplacian,
    per_sample_grad_norms,
    per_sample_grads,
    sparse_hessian,
    sparse_jacobian,
    trace_estimate,
    vmap,
)

CHUNK_SIZES = [None, 2, "auto", "1 B"]

MODELS = {
    "linear": (lambda: nn.Linear(2, 2), (2,)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, groups=2), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 2)
        ),
        (2, 4, 4),
    ),
    "conv1d and layer norm": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.LayerNorm(2), nn.Flatten(), nn.Linear(8, 2)),
        (2, 4),
    ),
    "no formula": (lambda: nn.Sequential(nn.Linear(2, 2), nn.PReLU()), (2,)),
}


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_vmap(chunk_size):
    mapped = vmap(lambda row: ((row**2).sum(), row[:2]), chunk_size=chunk_size)
    total, part = mapped(torch.ones(0, 3))
    assert total.shape == (0,) and part.shape == (0, 2)


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_samples(name, chunk_size):
    make, shape = MODELS[name]
    model, batch = make(), (torch.ones(0, *shape), torch.zeros(0, dtype=torch.long))
    options = {"chunk_size": chunk_size}
    shapes = {name: x.shape for name, x in model.named_parameters()}
    found = per_sample_grads(model, F.cross_entropy, **options)(*batch)
    assert {name: x.shape for name, x in found.items()} == {n: (0, *s) for n, s in shapes.items()}
    assert per_sample_grad_norms(model, F.cross_entropy, **options)(*batch).shape == (0,)
    found = clipped_grad_sum(model, F.cross_entropy, 1.0, **options)(*batch)
    assert {name: x.shape for name, x in found.items()} == shapes
    assert not any(x.any() for x in found.values())


def test_norms_of_an_embedding():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    batch = torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    assert per_sample_grad_norms(model, F.cross_entropy)(*batch).shape == (0,)


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_derivatives(shape, chunk_size):
    x, options = torch.ones(shape), {"chunk_size": chunk_size}
    square, total = lambda x: x**2, lambda x: (x**2).sum()
    for transform in (jacrev, jacfwd):
        assert transform(square, **options)(x).shape == (*shape, *shape)
        assert transform(total, **options)(x).shape == shape
    assert hessian(total, **options)(x).shape == (*shape, *shape)
    assert hessian_diag(total, **options)(x).shape == shape
    assert laplacian(total, **options)(x) == 0
    assert divergence(square, **options)(x) == 0
    assert sparse_jacobian(square, **options)(x).shape == (0, 0)
    assert sparse_hessian(total, **options)(x).shape == (0, 0)
    rows = sparse_jacobian(lambda x: x.sum().expand(2), **options)(x)
    assert rows.shape == (2, 0) and rows._nnz() == 0


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_sparse_matrices_without_rows(chunk_size):
    assert sparse_jacobian(lambda x: x[:0], chunk_size=chunk_size)(torch.ones(2)).shape == (0, 2)


def test_trace_of_nothing():
    assert trace_estimate(lambda x: 2 * x, torch.ones(0), samples=4).trace == 0


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_laplacian_of_exponents_of_nothing(chunk_size):
    functions = {
        (3, 0): [
            lambda x: F.softmax(x, -1),
            lambda x: F.log_softmax(x, -1),
            lambda x: torch.logsumexp(x, -1),
            lambda x: torch.logsumexp(x, (0, 1)),
            lambda x: x.sum(-1).log(),
        ],
        (0, 3): [lambda x: F.softmax(x, 0), lambda x: F.softmax(x, 1)],
    }
    for shape, each in functions.items():
        for function in each:
            x = torch.ones(shape)
            expected = torch.zeros_like(function(x))
            assert torch.equal(laplacian(function, chunk_size=chunk_size)(x), expected)


def test_laplacian_by_nothing_and_something():
    def function(nothing, x):
        return torch.logsumexp(nothing, 0).exp() + F.softmax(nothing, 0).sum() + (x**3).sum()

    found = laplacian(function, argnums=(0, 1))(torch.ones(0), torch.ones(2))
    assert found == 12
