"""Forward over reverse of normalization layers, whose tangents autograd doesn't record in vain."""

import pytest
import torch
from torch.autograd.forward_ad import unpack_dual
from torch.nn.functional import batch_norm, group_norm, layer_norm

from functorch_ext import grad, hessian, jvp, vmap
from test.oracle import assert_close, rand

X, WEIGHT = rand(5, 4, 3), rand(4)


def normalized(x, over):
    mean = x.mean(over, keepdim=True)
    return (x - mean) / ((x - mean).square().mean(over, keepdim=True) + 1e-5).sqrt()


def by_channel(x, weight):
    return x * weight[:, None]


STATISTICS = torch.zeros(4).double(), torch.ones(4).double()
NORMS = {
    "layer": (
        lambda x, w: layer_norm(x.mT, (4,), w),
        lambda x, w: normalized(x.mT, -1) * w,
    ),
    "group": (
        lambda x, w: group_norm(x, 2, w),
        lambda x, w: by_channel(normalized(x.reshape(5, 2, 6), -1).reshape(5, 4, 3), w),
    ),
    "batch": (
        lambda x, w: batch_norm(x, None, None, w, training=True),
        lambda x, w: by_channel(normalized(x, (0, 2)), w),
    ),
    "batch, running": (
        lambda x, w: batch_norm(x, *(each.clone() for each in STATISTICS), w, training=True),
        lambda x, w: by_channel(normalized(x, (0, 2)), w),
    ),
    "batch, known": (
        lambda x, w: batch_norm(x, *STATISTICS, w),
        lambda x, w: by_channel(x / (1 + 1e-5) ** 0.5, w),
    ),
}
norms = pytest.mark.parametrize(("norm", "by_hand"), NORMS.values(), ids=NORMS)


def loss(f):
    return lambda x, w: (f(x, w).sin() * f(x * 0.5, w).exp()).sum()


def pushed(f):
    return lambda *args: jvp(f, args, tuple(x.cos() for x in args))


TRANSFORMS = {
    "forward over reverse": lambda f: pushed(grad(loss(f), (0, 1))),
    "by the weight": lambda f: lambda x, w: pushed(grad(lambda w: loss(f)(x, w)))(w),
    "hessian": lambda f: lambda x, w: hessian(lambda w: loss(f)(x, w))(w),
    "reverse over all that": lambda f: grad(
        lambda x, w: sum(part.sum() for part in pushed(grad(loss(f), (0, 1)))(x, w)[1]), (0, 1)
    ),
    "forward over all that": lambda f: pushed(pushed(grad(loss(f), (0, 1)))),
    "reverse over forward": lambda f: grad(lambda x, w: pushed(loss(f))(x, w)[1], (0, 1)),
    "samples": lambda f: (
        lambda x, w: vmap(pushed(grad(loss(f), (0, 1))), (None, 0))(x, torch.stack([w, w.cos()]))
    ),
}


@norms
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_same_as_by_hand(norm, by_hand, transform):
    assert_close(transform(norm)(X, WEIGHT), transform(by_hand)(X, WEIGHT))


@norms
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_tangents_by_a_parameter_that_only_autograd_outside_knows(norm, by_hand, inside):
    scale = torch.tensor(1.5, dtype=torch.float64)

    def slope(f, scale):
        gradient = grad(lambda w: loss(f)(X * scale if inside else X, w))
        return jvp(gradient, (WEIGHT,), (WEIGHT.cos() if inside else WEIGHT * scale,))[1].sum()

    leaf = scale.clone().requires_grad_()
    (actual,) = torch.autograd.grad(slope(norm, leaf), leaf)
    assert_close(actual, grad(lambda scale: slope(by_hand, scale))(scale))


def test_running_statistics_are_written_once():
    mean, variance = (each.clone() for each in STATISTICS)
    pushed(grad(lambda x: batch_norm(x, mean, variance, training=True).sin().sum()))(X)
    expected = tuple(each.clone() for each in STATISTICS)
    batch_norm(X, *expected, training=True)
    assert_close((mean, variance), expected)


@norms
def test_tangents_are_recorded_for_somebody_only(norm, by_hand):
    def slope(w):
        def func(w):
            found = norm(X.cos(), w)
            recorded.append(unpack_dual(found, level=0).tangent.requires_grad)
            return found.sum()

        return jvp(grad(func), (w,), (w.cos(),))[1].sum()

    recorded = []
    slope(WEIGHT)
    slope(WEIGHT.clone().requires_grad_())
    grad(slope)(WEIGHT)
    assert recorded == [False, True, True]
