"""What plain PyTorch refuses is refused where an operator is computed from others, to be derived."""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import grad, jvp, vmap
from test.oracle import rand

INTEGERS = torch.ones(3, 2, dtype=torch.int64)
HALVES = torch.ones(3, 2, dtype=torch.float16)

# (a function, what it is given)
CASES = {
    "cdist, integers": (lambda x: torch.cdist(x, INTEGERS), rand(4, 2)),
    "cdist, other columns": (lambda x: torch.cdist(x, x[:, :1]), rand(4, 2)),
    "cdist, half": (lambda x: torch.cdist(x, HALVES), torch.ones(4, 2, dtype=torch.float16)),
    "cdist, p": (lambda x: torch.cdist(x, x + 1, -1), rand(4, 2)),
    "pdist, half": (torch.pdist, HALVES),
    "pdist, p": (lambda x: torch.pdist(x, -1), rand(4, 2)),
    "igamma_, integers": (
        lambda x: torch.ones(3, dtype=torch.int64).igamma_(x),
        torch.ones(3, dtype=torch.float64),
    ),
    "igammac_, integers": (
        lambda x: torch.ones(3, dtype=torch.int64).igammac_(x),
        torch.ones(3, dtype=torch.float64),
    ),
    "embedding_bag, complex": (
        lambda x: F.embedding_bag(torch.tensor([[0, 1]]), x, mode="sum"),
        rand(4, 2, dtype=torch.complex128),
    ),
    "multi_margin_loss, targets": (
        lambda x: F.multi_margin_loss(x, torch.tensor([0, 1])),
        rand(4, 2),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(name):
    function, x = CASES[name]
    errors = (RuntimeError, IndexError)
    with pytest.raises(errors) as plain:
        function(x)
    words = str(plain.value)[:30]
    with pytest.raises(errors) as caught:
        jvp(function, (x,), (x,))
    assert words in str(caught.value)
    with pytest.raises(errors) as caught:
        vmap(lambda x: jvp(function, (x,), (x,)))(torch.stack([x, x]))
    assert words in str(caught.value)
    twice = lambda x: grad(lambda x: function(x).abs().sum())(x)
    with pytest.raises(errors):
        jvp(twice, (x,), (x,))


def test_a_kind_of_arguments_that_was_taken_before():
    jvp(lambda x: torch.cdist(x, x + 1, 2.0), (rand(4, 2),), (rand(4, 2),))
    with pytest.raises(RuntimeError, match="non-negative p"):
        jvp(lambda x: torch.cdist(x, x + 1, -2.0), (rand(4, 2),), (rand(4, 2),))
    with pytest.raises(RuntimeError, match="same number of columns"):
        jvp(lambda x: torch.cdist(x, rand(4, 1)), (rand(4, 2),), (rand(4, 2),))
