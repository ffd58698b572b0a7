"""Writes to an expanded tensor, several elements of which lie in one place of memory.

PyTorch refuses most. What it takes for a sample must be taken for all.
"""

import pytest
import torch

from functorch_ext import jvp, vmap
from test.oracle import assert_close, rand

WRITES = {
    "masked_fill_ with a number": lambda x: x.masked_fill_(x > 0.1, 2.0),
    "masked_fill_ with a tensor": lambda x: x.masked_fill_(x > 0.1, x.sum()),
    "masked_fill_, broadcast": lambda x: x.masked_fill_(x[0] > 0.1, x.sum()),
    "masked_fill_, one element": lambda x: x.masked_fill_(
        (x > 0.1) & torch.eye(3, 2).bool(), x.sum()
    ),
    "a mask as an index": lambda x: x.__setitem__(x > 0.1, 1.0),
    "a mask as an index, a tensor": lambda x: x.__setitem__(x > 0.1, x.sum()),
    "a mask of rows": lambda x: x.__setitem__(x.sum(1) > 0.1, x.sum()),
    "a number as an index": lambda x: x.index_put_(
        (torch.tensor([1]),), torch.tensor(3.0).double()
    ),
    "index_fill_": lambda x: x.index_fill_(0, torch.tensor([1]), 2.0),
    "fill_": lambda x: x.fill_(2.0),
    "zero_": lambda x: x.zero_(),
}


@pytest.mark.filterwarnings("ignore:Use of .* on expanded tensors is deprecated")
@pytest.mark.parametrize("in_dim", [0, 1])
@pytest.mark.parametrize("name", WRITES)
def test_writes_that_pytorch_takes(name, in_dim):
    def function(x):
        x = (2 * x)[:, None].expand(3, 2)
        WRITES[name](x)
        return x

    x = rand(4, 3)
    given = x.movedim(0, in_dim)
    assert_close(vmap(function, in_dims=in_dim)(given), torch.stack([function(x) for x in x]))

    def pushed(x):
        return jvp(function, (x,), (x.cos(),))[1]

    assert_close(vmap(pushed, in_dims=in_dim)(given), torch.stack([pushed(x) for x in x]))


@pytest.mark.filterwarnings("ignore:Use of .* on expanded tensors is deprecated")
def test_a_view_that_is_gone_is_none():
    """Memory made inside several of whose elements are one has no views that the write would miss."""

    def function(x):
        out = torch.zeros(1, dtype=x.dtype).expand(3)
        out[0].add(1)  # a view that lives no longer than this
        out.index_put_((torch.tensor([1]),), x.sum())
        return out

    x = rand(4, 3)
    assert_close(vmap(function)(x), torch.stack([function(x) for x in x]))
