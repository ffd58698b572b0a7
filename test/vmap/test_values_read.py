"""Numbers read out of a batched tensor: an answer where the samples agree, an error elsewhere."""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import grad, jvp, vmap
from test.oracle import assert_close, loop, rand


def checked(x):
    if torch.any(x < -1e6):
        raise ValueError("out of range")
    return x.sin()


def test_a_check_that_all_samples_pass():
    x = rand(3, 4)
    assert_close(vmap(checked)(x), loop(checked)(x))
    assert_close(vmap(grad(lambda x: checked(x).sum()))(x), x.cos())
    assert_close(vmap(vmap(checked))(x), x.sin())
    assert_close(jvp(vmap(checked), (x,), (x,))[1], x * x.cos())


def test_a_check_that_one_sample_fails():
    x = rand(3, 4)
    x[1, 2] = -1e7
    with pytest.raises(RuntimeError, match="samples differ"):
        vmap(checked)(x)
    with pytest.raises(RuntimeError, match="samples differ"):
        vmap(vmap(checked))(x)
    with pytest.raises(ValueError, match="out of range"):
        vmap(checked)(torch.full((3, 4), -1e7))


@pytest.mark.parametrize("value", [2.5, float("inf"), float("nan"), 3, True, 1 + 2j])
def test_all_kinds_of_numbers(value):
    read = []
    vmap(lambda x: (read.append(x.item()), x)[1])(torch.tensor([value] * 3))
    assert type(read[0]) is type(value)
    assert read[0] == value or value != value


@pytest.mark.parametrize("values", [[1.0, float("nan")], [float("nan"), 1.0], [1.0, 2.0]])
def test_numbers_that_differ(values):
    with pytest.raises(RuntimeError, match="samples differ"):
        vmap(lambda x: x * x.item())(torch.tensor(values))


def test_no_samples():
    with pytest.raises(RuntimeError, match="the batch is empty"):
        vmap(lambda x: x * x.item())(torch.zeros(0))


def test_equal():
    x = rand(3, 4)
    same = []
    vmap(lambda x: (same.append(torch.equal(x, x)), x)[1])(x)
    vmap(lambda x: (same.append(torch.equal(x, x + 1)), x)[1])(x)
    assert same == [True, False]


def test_losses_that_check_their_arguments():
    mean, target, variance = rand(3, 4), rand(3, 4), rand(3, 4).abs() + 0.1
    assert_close(
        vmap(F.gaussian_nll_loss)(mean, target, variance),
        loop(F.gaussian_nll_loss)(mean, target, variance),
    )
