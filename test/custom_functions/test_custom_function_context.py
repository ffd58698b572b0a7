"""Custom autograd functions inside vmap: what their context tells and takes, and their errors."""

import pytest
import torch
from torch.autograd import Function

from functorch_ext import grad, jvp, vjp, vmap
from test.custom_functions.functions import Doubled, NumpySine, Once, Product, Scaled
from test.oracle import assert_close, rand
from test.state import failure


def test_outputs_of_each_kind():
    x, w = rand(4, 3), rand(4, 3)
    kept = []

    def outputs(x, w):
        y, sign, count = Product.apply(x, w, 7)
        kept.append((count, sign.requires_grad))
        return y, sign

    y, sign = vmap(outputs)(x.requires_grad_(), w)
    assert kept == [(7, False)]
    assert_close((y.detach(), sign), (x.detach() * w, (x.detach() * w).sign()))
    assert y.requires_grad and not sign.requires_grad


class Switch(Function):
    """Tells its context's needs_input_grad, and gets None for outputs that aren't used."""

    seen = []

    @staticmethod
    def forward(ctx, x, weights, w):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(None, x)
        Switch.seen.append(ctx.needs_input_grad)
        return x * weights[0], w.clone()

    @staticmethod
    def backward(ctx, first, second):
        assert ctx.saved_tensors[0] is None
        Switch.seen.append((*ctx.needs_input_grad, first is None, second is None))
        return 5 * first, None, None


def test_needs_input_grad_and_unused_outputs():
    x, w = rand(4, 3), rand(4)
    Switch.seen.clear()
    result = grad(lambda x: vmap(lambda x, w: Switch.apply(x, [w, 1], w)[0])(x, w).sum())(x)
    assert_close(result, torch.full_like(x, 5.0))
    assert Switch.seen == [(True, False, False), (True, False, False, False, True)]


@pytest.mark.parametrize("nest", [lambda f: vmap(f), lambda f: vmap(vmap(f))])
def test_once_differentiable(nest):
    x = rand(2, 4, 3)
    first = grad(lambda x: nest(Once.apply)(x).square().sum())
    assert_close(first(x), 6 * x.sin() * x.cos())
    x.requires_grad_()
    found = torch.autograd.grad(nest(Once.apply)(x).square().sum(), x, create_graph=True)[0]
    assert "once_differentiable" in failure(found.sum().backward, RuntimeError)


def test_mark_dirty():
    x = rand(4, 3)

    def in_place(x):
        y = x * 1
        z = Doubled.apply(y)
        assert z is y
        return z * y

    assert_close(grad(lambda x: vmap(in_place)(x).sum())(x), 7 * 4 * x)


def test_results_can_be_changed_in_place():
    x = rand(4, 3)
    result = grad(lambda x: vmap(lambda x: Scaled.apply(x, 1.0).mul_(3).add_(x))(x).sum())(x)
    assert_close(result, 9 * x + 1)


class Noise(Function):
    """x * noise, which saves the noise."""

    @staticmethod
    def forward(ctx, x):
        noise = torch.rand_like(x)
        ctx.save_for_backward(noise)
        return x * noise

    @staticmethod
    def backward(ctx, cotangent):
        return 3 * cotangent * ctx.saved_tensors[0]


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_random_forward(randomness):
    x = rand(4, 3)
    output, pullback = vjp(vmap(Noise.apply, randomness=randomness), x)
    noise = output / x
    assert_close(pullback(torch.ones_like(x))[0], 3 * noise)
    # Recorded on both planes: 2 * (x * noise) * 3 * noise, and its derivative, of one draw.
    inner = grad(lambda x: Noise.apply(x).square().sum())
    output, pullback = vjp(vmap(inner, randomness=randomness), x)
    assert_close(pullback(torch.ones_like(x))[0], 3 * output / x)


def test_random_forward_of_shared_arguments():
    w = rand(3)
    output, pullback = vjp(
        vmap(lambda w, _: Noise.apply(w), (None, 0), randomness="different"), w, rand(4)
    )
    assert_close(pullback(torch.ones_like(output))[0], 3 * (output / w).sum(0))


class Wrong(Function):
    @staticmethod
    def forward(ctx, x, y):
        return x * y

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent


class BothRules(NumpySine):
    generate_vmap_rule = True


class NoTuple(NumpySine):
    @staticmethod
    def vmap(info, in_dims, x):
        return x


class NoSetup(Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent

    @staticmethod
    def vmap(info, in_dims, x):
        return NoSetup.apply(x), in_dims[0]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: grad(lambda x: vmap(Wrong.apply)(x, x).sum())(x), "Wrong returned 1 gradients"),
        (vmap(BothRules.apply), "both a vmap staticmethod and generate_vmap_rule"),
        (vmap(NoTuple.apply), "must return (output, out_dims)"),
        (vmap(grad(lambda x: NoSetup.apply(x).sum())), "takes a setup_context"),
        (lambda x: jvp(vmap(Wrong.apply), (x, x), (x, x)), "jvp"),
    ],
)
def test_errors(function, words):
    x = rand(4, 3)
    assert words in failure(lambda: function(x), (RuntimeError, NotImplementedError))


def test_no_setup_below():
    x = rand(4, 3)
    assert_close(grad(lambda x: vmap(NoSetup.apply)(x).sum())(x), torch.ones_like(x))
