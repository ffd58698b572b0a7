"""torch_geometric: per-sample gradients and Jacobians of layers on one graph."""

import pytest
import torch
from torch.autograd import functional

from functorch_ext import jacfwd, jacrev
from test.libraries.per_sample import assert_per_sample_gradients

geometric = pytest.importorskip("torch_geometric.nn")
pytestmark = pytest.mark.slow

EDGES = torch.tensor([[0, 1, 2, 3, 1], [1, 2, 3, 0, 3]])


@pytest.fixture(params=["GCNConv", "GATConv", "SAGEConv"])
def layer(request):
    torch.manual_seed(0)
    return getattr(geometric, request.param)(5, 2).eval()


def test_per_sample_gradients(layer):
    loss = lambda layer, x: layer(x, EDGES).square().sum()
    assert_per_sample_gradients(layer, loss, torch.randn(3, 4, 5))


def test_jacobians(layer):
    x = torch.randn(4, 5)
    function = lambda x: layer(x, EDGES)
    expected = functional.jacobian(function, x)
    torch.testing.assert_close(jacrev(function)(x), expected)
    torch.testing.assert_close(jacfwd(function)(x), expected)
