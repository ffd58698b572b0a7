"""Every workload is what it is without jit, at the first call and at later ones."""

import optree
import pytest
import torch

from functorch_ext import jit
from functorch_ext._pytree import leaves_of
from test.jit.workloads import ALL


def other(tensor):
    return tensor + 0.1 * torch.rand_like(tensor) if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("backend", ["graph", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ALL)
def test_workload(name, backend):
    function, args = ALL[name]()
    jitted = jit(function, backend=backend)
    for _ in range(2):
        torch.testing.assert_close(leaves_of(jitted(*args)), leaves_of(function(*args)))
        args = optree.tree_map(other, args)


@pytest.mark.slow
def test_inductor_adds_into_expanded_zeros():
    def function(index, values):
        zeros = torch.zeros(()).expand(4, 3)
        return torch.index_put(zeros, (index,), values, accumulate=True)

    args = torch.tensor([0, 2, 2]), torch.randn(3, 3)
    torch.testing.assert_close(jit(function)(*args), function(*args))
