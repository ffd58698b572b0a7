"""Shapes that plain PyTorch refuses for a sample are refused, before a rule merges them into others.

Once samples are merged, spread or expanded, a shape may look right to PyTorch's own checks, or may
lack the dimension that a rule works with.
"""

import functools

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import grad, vmap
from test.oracle import assert_close, loop, rand

aten = torch.ops.aten
INDEX = torch.tensor([[0, 1], [1, 0]])


def spread(name, source, *options, shape=(1, 5, 5), dim=-1):
    return lambda i: getattr(torch.zeros(shape), name)(dim, i, torch.ones(source), *options)


# (a function of one sample, the samples)
CASES = {
    "index_copy, rank": (spread("index_copy", (5, 2)), INDEX),
    "index_copy, length": (spread("index_copy", (1, 5, 3)), INDEX),
    "index_copy, size": (spread("index_copy", (1, 6, 2)), INDEX),
    "index_copy, smaller": (spread("index_copy", (1, 4, 2)), INDEX),
    "index_add, rank": (spread("index_add", (5, 2)), INDEX),
    "index_add, length": (spread("index_add", (1, 5, 3)), INDEX),
    "index_add, size": (spread("index_add", (1, 6, 2)), INDEX),
    "index_reduce, rank": (spread("index_reduce", (5, 2), "amax"), INDEX),
    "index_reduce, size": (spread("index_reduce", (1, 6, 2), "amax"), INDEX),
    "index_copy, matrix of indices": (spread("index_copy", (1, 5, 4)), INDEX.unsqueeze(1)),
    "index_fill, matrix of indices": (
        lambda i: torch.zeros(4).index_fill(0, i, 1.0),
        INDEX.unsqueeze(1),
    ),
    "index_select, of a number": (lambda i: torch.zeros(()).index_select(0, i), INDEX * 0),
    "masked_scatter, of nothing": (
        lambda x: x.masked_scatter(x > 0, torch.ones(0)),
        torch.ones(2, 3),
    ),
    "unbind, of a number": (torch.unbind, rand(3)),
    "split, of a number": (lambda x: x.split(1)[0], rand(3)),
    "split, sizes, of a number": (lambda x: x.split([1])[0], rand(3)),
    "unsafe_split, of a number": (lambda x: x.unsafe_split(1)[0], rand(3)),
    "chunk, of a number": (lambda x: x.chunk(1)[0], rand(3)),
    "select, of a number": (lambda x: x.select(0, 0), rand(3)),
    "slice, of a number": (lambda x: x[:1], rand(3)),
    "gradient of split, of a number": (grad(lambda x: x.split(1)[0]), rand(3)),
    "conv2d, a number as weight": (
        lambda w: F.conv2d(torch.ones(1, 2, 4, 4), w, groups=2),
        torch.ones(3),
    ),
    "conv2d, a vector as weight": (
        lambda w: F.conv2d(torch.ones(1, 2, 4, 4), w),
        torch.ones(3, 2),
    ),
    "conv2d, the gradient, numbers": (
        lambda g: aten.convolution_backward(
            g, g, g, [0], [1], [0], [1], False, [0], 1, [True, True, True]
        ),
        torch.ones(3),
    ),
    "conv2d, the gradient, larger than the output": (
        lambda x: aten.convolution_backward(
            x.mean() + x.new_ones(1, 2, 90, 90),
            x,
            x.new_ones(2, 2, 2, 2),
            [0],
            [1, 1],
            [0, 0],
            [1, 1],
            False,
            [0, 0],
            1,
            [False, True, False],
        ),
        rand(3, 1, 2, 4, 4),
    ),
    "affine_grid, without a size": (
        lambda x: aten.affine_grid_generator(x, [], False),
        rand(3, 1, 2, 3),
    ),
    "upsample, the gradient, without a size": (
        lambda g: aten.upsample_nearest2d_backward(g, [2, 2], []),
        rand(3, 1, 1, 2, 2),
    ),
    "lstm, one state": (
        lambda x: torch.lstm(
            x, [rand(1, 1, 2)], [rand(8, 2), rand(8, 2)], False, 1, 0.0, False, False, False
        ),
        rand(3, 4, 1, 2),
    ),
    "lstm, too few weights": (
        lambda x: torch.lstm(
            x, [rand(1, 1, 2)] * 2, [rand(8, 2), rand(8, 2)], True, 1, 0.0, False, False, False
        ),
        rand(3, 4, 1, 2),
    ),
    "lstm, no layers": (
        lambda x: torch.lstm(x, [rand(0, 1, 2)] * 2, [], False, 0, 0.0, False, False, False),
        rand(3, 4, 1, 2),
    ),
    "lstm_cell, one state": (
        lambda x: torch.lstm_cell(x, [rand(1, 2)], rand(8, 2), rand(8, 2)),
        rand(3, 1, 2),
    ),
    "gru_cell, too few gates": (
        lambda x: torch.gru_cell(x, rand(1, 1), rand(2, 2), rand(2, 1)),
        rand(3, 1, 2),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(name):
    function, samples = CASES[name]
    with pytest.raises((RuntimeError, IndexError)):
        function(samples[0])
    with pytest.raises((RuntimeError, IndexError)) as caught:
        vmap(function, randomness="same")(samples)
    assert "INTERNAL ASSERT" not in str(caught.value)


def test_a_vector_of_scores_with_a_class_of_shape_1_is_taken():
    classes = torch.tensor([[1], [2], [0]])
    x = rand(3, 3)
    for reduction in ("none", "mean", "sum"):
        function = functools.partial(F.nll_loss, reduction=reduction)
        assert_close(vmap(function)(x, classes), loop(function)(x, classes))
    function = lambda x: F.nll_loss(x, torch.tensor([1]))
    assert_close(vmap(function)(x), loop(function)(x))
