"""Numbers that plain PyTorch refuses for a sample: the batch is refused, too."""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import functionalize, grad, jvp, vmap
from test.oracle import assert_close, loop, rand

FIRST = torch.tensor([0])
BYTES = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 1, 0]], dtype=torch.uint8)
FILLS = {
    "index_fill": lambda x, value: x.index_fill(0, FIRST, value),
    "index_fill, in place": lambda x, value: x.clone().index_fill_(0, FIRST, value),
    "masked_fill": lambda x, value: x.masked_fill(x == 0, value),
    "masked_fill, in place": lambda x, value: x.clone().masked_fill_(x == 0, value),
}


@pytest.mark.parametrize("name", FILLS)
def test_a_number_that_overflows_in_one_sample(name):
    fill = FILLS[name]
    for values in ([1.5, 255.0, 7.0], [1, 2, 3], [1 + 0j, 2, 3]):
        values = torch.tensor(values)
        if not (values.is_complex() and "index_fill" in name):  # not for PyTorch either
            assert torch.equal(vmap(fill)(BYTES, values), loop(fill)(BYTES, values))
    for values in ([1, 2, -1.0], [1, 300, 1], [float("nan"), 1, 1], [1 + 0j, 2, 300]):
        with pytest.raises(RuntimeError):
            loop(fill)(BYTES, torch.tensor(values))
        with pytest.raises(RuntimeError):
            vmap(fill)(BYTES, torch.tensor(values))


def test_a_number_that_overflows_half_precision():
    x = torch.ones(2, 3, dtype=torch.float16)
    with pytest.raises(RuntimeError, match="without overflow"):
        vmap(lambda x, v: x.masked_fill(x == 1, v))(x, torch.tensor([1.0, 1e6]))


LENGTHS = torch.tensor([[2, 0, 3], [1, 2, 2], [5, -1, 1]])
OFFSETS = torch.tensor([[0, 2, 5], [0, 1, 5], [0, 4, 7]])


@pytest.mark.parametrize("transform", ["plain", "jvp", "grad"])
@pytest.mark.parametrize("unsafe", [False, True])
@pytest.mark.parametrize("points", ["lengths", "offsets"])
def test_segments_beyond_the_data(points, unsafe, transform):
    """PyTorch's backward pass writes where they point, and never looks."""

    def reduce(x, numbers):
        return torch.segment_reduce(x, "sum", **{points: numbers}, unsafe=unsafe)

    def function(x, numbers):
        if transform == "jvp":
            return jvp(lambda x: reduce(x, numbers), (x,), (x,))[1]
        if transform == "grad":
            return grad(lambda x: reduce(x, numbers).sin().sum())(x)
        return reduce(x, numbers)

    x = rand(3, 5)
    numbers = {"lengths": LENGTHS, "offsets": OFFSETS}[points]
    assert_close(vmap(function)(x[:2], numbers[:2]), loop(function)(x[:2], numbers[:2]))
    with pytest.raises(RuntimeError, match="segment_reduce|lengths"):
        vmap(function)(x, numbers)
    if transform != "plain":
        with pytest.raises(RuntimeError, match="segment_reduce|lengths"):
            function(x[2], numbers[2])


def test_views_of_samples_that_lie_between_each_other():
    """Strides that would lead from a sample's numbers to those of another one."""
    x = rand(2, 5, 3)
    view = lambda size, stride, offset=0: vmap(lambda x: x.as_strided(size, stride, offset), -1)
    assert_close(view((2, 2), (15, 6))(x), x.permute(2, 0, 1)[:, :, [0, 2]])
    assert_close(
        view((2, 2), (3, 6), 18)(x), torch.stack([x[1, 1:4:2], x[1, 2:5:2]]).permute(2, 0, 1)
    )
    for size, stride, offset in (((2, 2), (1, 3), 0), ((2,), (3,), 1), ((2,), (15,), 3 * 5)):
        with pytest.raises(RuntimeError, match="as_strided|out of bounds"):
            view(size, stride, offset)(x)


@pytest.mark.parametrize("classes", [[0, -1], [0, 5]])
def test_classes_that_no_sample_gave(classes):
    function = lambda x: F.one_hot(torch.tensor(classes), 4) + x
    for call in (
        lambda: vmap(function)(rand(2)),
        lambda: functionalize(function)(rand()),
        lambda: vmap(functionalize(function))(rand(2)),
        lambda: vmap(grad(lambda x: function(x).sum()))(rand(2)),
    ):
        with pytest.raises(RuntimeError, match="Class values"):
            call()


def test_classes_are_counted():
    function = lambda x: F.one_hot(torch.tensor([0, 2])) + x
    assert vmap(function)(rand(2)).shape == (2, 2, 3)
    assert functionalize(function)(rand()).shape == (2, 3)


@pytest.mark.parametrize("rank", [3, 4])
def test_attention_without_a_probability(rank):
    x = rand(2, *[3] * rank)
    with pytest.raises(RuntimeError, match="dropout_p between 0 and 1, but got nan"):
        vmap(
            lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=float("nan")),
            randomness="different",
        )(x)
