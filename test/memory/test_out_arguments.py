"""out= arguments made inside vmap."""

import pytest
import torch

from functorch_ext import vmap
from test.oracle import assert_close, loop, rand
from test.state import assert_failure

COMPOSITE = {
    "linalg.inv": lambda x, out: torch.linalg.inv(x, out=out),
    "linalg.svdvals": lambda x, out: torch.linalg.svdvals(x, out=out),
    "linalg.norm": lambda x, out: torch.linalg.norm(x, out=out),
    "matmul": lambda x, out: torch.matmul(x, x, out=out),
    "logdet": lambda x, out: torch.linalg.det(x, out=out),
}


@pytest.mark.parametrize("name", COMPOSITE)
def test_operators_that_are_made_of_others(name):
    function = lambda x: COMPOSITE[name](x, torch.empty(0, dtype=x.dtype))
    x = rand(3, 4, 4)
    assert_close(vmap(function)(x), loop(function)(x))


def test_a_part_of_what_was_made_inside():
    def function(x):
        made = torch.zeros(5, dtype=x.dtype)
        torch.add(x[:2], x[1:], out=made[1:3])
        return made

    x = rand(3, 3)
    assert_close(vmap(function)(x), loop(function)(x))


def test_a_view_of_another_shape():
    def function(x):
        made = torch.zeros(5)
        torch.add(x, 1, out=made[1:3])
        return made

    assert_failure(
        lambda: vmap(function)(torch.rand(3, 4)),
        RuntimeError,
        """functorch_ext.vmap: aten::add.out would resize its out argument from [2] to [4], but that is a view of another tensor. Take a view of the result's shape.""",
    )
