"""Sizes that plain PyTorch refuses for a sample, after calls of the same ranks and dtypes that it took.

A rule that broadcasts one argument to the size of another, or merges samples, doesn't see them.
"""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import vmap
from test.oracle import rand

ERRORS = (RuntimeError, IndexError)

# (an operator, the shapes of arguments that it takes, those of arguments that it doesn't)
CASES = {
    "addmm": (torch.addmm, [(2, 3), (2, 4), (4, 3)], [(2, 3), (1, 4), (4, 3)]),
    "addmv": (torch.addmv, [(2,), (2, 4), (4,)], [(2,), (1, 4), (4,)]),
    "addr": (torch.addr, [(2, 3), (2,), (3,)], [(2, 3), (1,), (3,)]),
    "addbmm": (torch.addbmm, [(2, 3), (5, 2, 4), (5, 4, 3)], [(2, 3), (5, 1, 4), (5, 4, 3)]),
    "baddbmm": (
        torch.baddbmm,
        [(5, 2, 3), (5, 2, 4), (5, 4, 3)],
        [(5, 2, 3), (5, 1, 4), (5, 4, 3)],
    ),
    "put": (
        lambda x, source: x.put(torch.tensor([0, 1]), source),
        [(3,), (2,)],
        [(3,), (1,)],
    ),
    "layer_norm": (
        lambda x, weight: F.layer_norm(x, (3,), weight),
        [(2, 3), (3,)],
        [(2, 3), (1,)],
    ),
    "group_norm": (
        lambda x, weight: F.group_norm(x, 2, weight),
        [(2, 4), (4,)],
        [(2, 4), (1,)],
    ),
    "batch_norm": (
        lambda x, weight: F.batch_norm(x, None, None, weight, training=True),
        [(2, 4), (4,)],
        [(2, 4), (1,)],
    ),
    "batch_norm, rank of the weight": (
        lambda x, weight: F.batch_norm(x.mT, None, None, weight, training=True),
        [(2, 5, 4), (4,)],
        [(2, 5, 4), (4, 2)],
    ),
    "conv1d, bias": (F.conv1d, [(1, 2, 5), (3, 2, 2), (3,)], [(1, 2, 5), (3, 2, 2), (1,)]),
    "conv2d, bias": (F.conv2d, [(2, 5, 5), (3, 2, 2, 2), (3,)], [(2, 5, 5), (3, 2, 2, 2), (1,)]),
    "nll_loss, weight": (
        lambda x, weight: F.nll_loss(x, torch.tensor([0, 0]), weight),
        [(2, 3), (3,)],
        [(2, 3), (1,)],
    ),
    "cross_entropy, weight": (
        lambda x, weight: F.cross_entropy(x, torch.tensor([0, 0]), weight),
        [(2, 3), (3,)],
        [(2, 3), (4,)],
    ),
    "multi_margin_loss, weight": (
        lambda x, weight: F.multi_margin_loss(x, torch.tensor([0, 0]), weight=weight),
        [(2, 3), (3,)],
        [(2, 3), (4,)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(name):
    function, taken, refused = CASES[name]
    vmap(function)(*(rand(3, *shape) for shape in taken))
    with pytest.raises(ERRORS):
        function(*(rand(*shape) for shape in refused))
    arguments = [rand(3, *shape) for shape in refused]
    with pytest.raises(ERRORS):
        vmap(function)(*arguments)
    for position in range(len(arguments)):
        dims = [0] * len(arguments)
        dims[position] = None
        some = [x[0] if i == position else x for i, x in enumerate(arguments)]
        with pytest.raises(ERRORS):
            vmap(function, tuple(dims))(*some)
