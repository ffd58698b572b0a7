"""Arguments that PyTorch takes for constants: it raises in reverse mode, and has no tangent."""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import grad, jacfwd, jacrev, jvp, vmap
from test.oracle import assert_close, loop, rand

REDUCTIONS = ["none", "mean", "sum"]
SCORES = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).reshape(4, 3)
LABELS = torch.tensor([0, 2, 1, 2])
HALVES = SCORES.sigmoid()


def reduced(losses, reduction):
    return losses if reduction == "none" else getattr(losses, reduction)()


def likelihood(weight, reduction):
    counts = LABELS != 1
    weights = torch.stack([weight[label] for label in LABELS]) * counts
    losses = -weights * SCORES[torch.arange(4), LABELS]
    return losses.sum() / weights.sum() if reduction == "mean" else reduced(losses, reduction)


def with_logits(target, weight, pos_weight, reduction):
    losses = -pos_weight * target * HALVES.log() - (1 - target) * (1 - HALVES).log()
    return reduced(losses * weight, reduction)


def normalized(mean, variance):
    return (SCORES - mean) / (variance + 1e-5).sqrt()


# By a tensor of three numbers: PyTorch's function, and the same of parts that it differentiates.
CASES = {
    "nll_loss": (
        lambda w, how: F.nll_loss(SCORES, LABELS, w, ignore_index=1, reduction=how),
        likelihood,
    ),
    "nll_loss of images": (
        lambda w, how: F.nll_loss(
            SCORES.T.reshape(1, 3, 2, 2), LABELS.reshape(1, 2, 2), w, ignore_index=1, reduction=how
        ).flatten(),
        lambda w, how: likelihood(w, how).flatten(),
    ),
    "binary_cross_entropy": (
        lambda w, how: F.binary_cross_entropy(HALVES, HALVES, w, reduction=how),
        lambda w, how: with_logits(HALVES, w, 1, how),
    ),
    "with_logits, weight": (
        lambda w, how: F.binary_cross_entropy_with_logits(SCORES, HALVES, w, reduction=how),
        lambda w, how: with_logits(HALVES, w, 1, how),
    ),
    "with_logits, pos_weight": (
        lambda w, how: F.binary_cross_entropy_with_logits(
            SCORES, HALVES, pos_weight=w, reduction=how
        ),
        lambda w, how: with_logits(HALVES, 1, w, how),
    ),
    "with_logits, all": (
        lambda w, how: F.binary_cross_entropy_with_logits(
            SCORES, w.expand(4, 3), w.cos(), pos_weight=w.sin(), reduction=how
        ),
        lambda w, how: with_logits(w, w.cos(), w.sin(), how),
    ),
    "soft_margin_loss": (
        lambda t, how: F.soft_margin_loss(SCORES, t.expand(4, 3), reduction=how),
        lambda t, how: reduced((-t * SCORES).exp().log1p(), how),
    ),
    "batch_norm, mean": (
        lambda m, how: reduced(F.batch_norm(SCORES, m, m.detach() * 0 + 2), how),
        lambda m, how: reduced(normalized(m, torch.full((), 2, dtype=m.dtype)), how),
    ),
    "batch_norm, variance": (
        lambda v, how: reduced(F.batch_norm(SCORES, v.detach() * 0, v), how),
        lambda v, how: reduced(normalized(0, v), how),
    ),
}


def gradient(f):
    return lambda x: grad(lambda x: f(x).sin().sum())(x)


def tangent(f):
    return lambda x: jvp(f, (x,), (x.cos(),))[1]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_first_derivatives(name, reduction):
    check(name, gradient, reduction)
    check(name, tangent, reduction)


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives(name):
    check(name, lambda f: jacrev(jacfwd(f)), "mean")
    check(name, lambda f: jacfwd(jacfwd(f)), "mean")


def check(name, transformed, reduction):
    function, same = CASES[name]
    xs = rand(2, 3).sigmoid() + 0.1
    assert_close(function(xs[0], reduction), same(xs[0], reduction))
    expected = loop(transformed(lambda x: same(x, reduction)))(xs)
    actual = transformed(lambda x: function(x, reduction))
    assert_close(actual(xs[0]), expected[0])
    assert_close(vmap(actual)(xs), expected)
