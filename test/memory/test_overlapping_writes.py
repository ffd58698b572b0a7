"""Writing to memory that is read from as well: what plain PyTorch refuses is refused for samples."""

import pytest
import torch

from functorch_ext import grad, jvp, vmap
from test.oracle import assert_close, loop, rand


def copied(x):
    y = x.clone()
    y[1:].copy_(y[:-1])
    return y


def added(x):
    y = x.clone()
    y[:-1].add_(y[1:])
    return y


def made_inside(x):
    y = torch.zeros(5, dtype=x.dtype)
    y += x
    y[1:].mul_(y[:-1])
    return y


def batched_by_a_third(x):
    y = torch.zeros(5, dtype=x.dtype)
    y[1:].addcmul_(y[:-1], x[1:])
    return y


def indexed(x):
    y = x.clone()
    y[1:].index_copy_(0, torch.tensor([0, 1, 2, 3]), y[:-1])
    return y


def scattered(x):
    y = x.clone()
    return y.scatter_(0, torch.tensor([1, 0]), y)


def as_out(x):
    y = x.clone()
    torch.add(y[:-1], 1, out=y[1:])
    return y


OVERLAPS = "unsupported operation: some elements of the input tensor"
IN_PLACE = [copied, added, made_inside, batched_by_a_third, indexed, scattered]


@pytest.mark.parametrize("function", [*IN_PLACE, as_out])
def test_refused(function):
    x = rand(3, 5)
    with pytest.raises(RuntimeError, match=OVERLAPS):
        function(x[0])
    with pytest.raises(RuntimeError, match=OVERLAPS):
        vmap(function)(x)
    with pytest.raises(RuntimeError, match=OVERLAPS):
        vmap(function, in_dims=1)(x.T)
    with pytest.raises(RuntimeError, match=OVERLAPS):
        vmap(vmap(function), in_dims=1)(torch.stack([x, x], 1))


@pytest.mark.parametrize("function", IN_PLACE)
def test_refused_where_it_is_differentiated(function):
    x = rand(3, 5)
    with pytest.raises(RuntimeError, match=OVERLAPS):
        vmap(grad(lambda x: function(x).sum()))(x)
    with pytest.raises(RuntimeError, match=OVERLAPS):
        vmap(lambda x: jvp(function, (x,), (x,)))(x)


def to_itself(x):
    return x.clone().mul_(x).add_(x.sum())


def doubled(x):
    y = x.clone()
    return y.add_(y)


def next_to_each_other(x):
    y = x.clone()
    y[:2].add_(y[2:4])
    return y


def in_turns(x):
    y = x.clone()
    y[0:4:2].mul_(y[1:4:2])
    return y


def of_a_matrix(x):
    y = x.outer(x)
    y[0].copy_(y[1])
    y[:, 2].add_(y[:, 1])
    return y


def out_of_itself(x):
    y = x.clone()
    return torch.add(y, 1, out=y)


@pytest.mark.parametrize(
    "function", [to_itself, doubled, next_to_each_other, in_turns, of_a_matrix, out_of_itself]
)
def test_taken(function):
    x = rand(3, 5)
    assert_close(vmap(function)(x), loop(function)(x))
    assert_close(vmap(function, in_dims=1)(x.T.contiguous()), loop(function)(x))
    assert_close(vmap(vmap(function))(x[None])[0], loop(function)(x))
