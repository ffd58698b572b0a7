"""debug_unwrap: what the tensors of transforms stand for."""

import torch

from functorch_ext import debug_unwrap, grad, jvp, vmap
from test.oracle import rand


def test_a_plain_tensor_stands_for_itself():
    x = rand(3)
    assert debug_unwrap(x) is x and debug_unwrap(x, recurse=False) is x


def test_all_samples_of_every_vmap_or_of_one():
    x = rand(2, 3, 4)
    seen = []

    def function(row):
        seen.append((debug_unwrap(row), debug_unwrap(row, recurse=False).shape))
        return row

    vmap(vmap(function), 1)(x)
    everything, one = seen[0]
    assert everything.data_ptr() == x.data_ptr() and sorted(everything.shape) == [2, 3, 4]
    assert one == (2, 4)


def test_derivatives_inside_a_vmap():
    x = rand(2, 3)
    seen = []

    def function(row):
        seen.append(debug_unwrap(row).detach())
        return row.square().sum()

    vmap(grad(function))(x)
    vmap(lambda row: jvp(function, (row,), (row,))[1])(x)
    for value in seen:
        assert torch.equal(value, x)
