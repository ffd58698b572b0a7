"""Custom autograd functions whose outputs are inputs as they are, or views of them."""

import pytest
import torch
from torch.autograd import Function

from functorch_ext import grad, hessian, jacfwd, jacrev, jvp, vmap
from test import oracle
from test.oracle import assert_close, loop, rand


class AsItIs(Function):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, cotangent):
        return 3 * cotangent

    @staticmethod
    def jvp(ctx, tangent):
        return tangent


class WithSetup(AsItIs):
    @staticmethod
    def forward(x):
        return x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass


class TangentAsView(AsItIs):
    @staticmethod
    def jvp(ctx, tangent):
        return tangent.view_as(tangent)


class View(TangentAsView):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)


class Flipped(AsItIs):
    """Another view than the whole."""

    @staticmethod
    def forward(ctx, x):
        return x.transpose(0, 1)

    @staticmethod
    def backward(ctx, cotangent):
        return 3 * cotangent.transpose(0, 1)

    @staticmethod
    def jvp(ctx, tangent):
        return tangent.transpose(0, 1)


class Both(AsItIs):
    @staticmethod
    def forward(ctx, x, y):
        return x, y

    @staticmethod
    def jvp(ctx, x_tangent, y_tangent):
        return x_tangent, y_tangent


class Doubled(AsItIs):
    """Writes in place; so its jvp has to do the same to the tangent."""

    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def jvp(ctx, tangent):
        return tangent.mul_(2)


# each with what has its derivatives in forward mode; those in reverse mode are three times as large
FUNCTIONS = {
    "as it is": (AsItIs.apply, lambda x: x),
    "with setup": (WithSetup.apply, lambda x: x),
    "tangent as a view": (TangentAsView.apply, lambda x: x),
    "view": (View.apply, lambda x: x),
    "transposed": (Flipped.apply, lambda x: x.transpose(0, 1)),
    "two": (lambda x: torch.mul(*Both.apply(x, x.exp())), lambda x: x * x.exp()),
    "one without a tangent": (lambda x: torch.mul(*Both.apply(x, torch.ones(3))), lambda x: x),
    "in place": (lambda x: Doubled.apply(x.sin()), lambda x: 2 * x.sin()),
}


def push(f):
    return lambda x: jvp(f, (x,), (x.cos(),))[1]


def plain_push(f):
    return lambda x: oracle.jvp(f, x, x.cos())[1]


@pytest.fixture(params=FUNCTIONS)
def pair(request):
    ours, plain = FUNCTIONS[request.param]
    return lambda x: ours(x.sin()).exp(), lambda x: plain(x.sin()).exp()


def test_tangents(pair):
    ours, plain = pair
    x = rand(2, 4, 3)
    expected = loop(plain_push(plain))(x)
    assert_close(torch.stack([push(ours)(x) for x in x]), expected)
    assert_close(vmap(push(ours))(x), expected)
    assert_close(push(vmap(ours))(x), expected)
    assert_close(vmap(jacfwd(ours))(x), loop(oracle.jacobian(plain))(x))


def test_tangents_of_tangents(pair):
    ours, plain = pair
    x = rand(2, 4, 3)
    expected = loop(plain_push(plain_push(plain)))(x)
    assert_close(torch.stack([push(push(ours))(x) for x in x]), expected)
    assert_close(vmap(push(push(ours)))(x), expected)
    assert_close(push(vmap(push(ours)))(x), expected)
    second = loop(oracle.jacobian(oracle.jacobian(plain)))(x)
    assert_close(vmap(jacfwd(jacfwd(ours)))(x), second)


def test_reverse_mode_keeps_its_own_backward():
    x = rand(2, 4, 3)
    loss = lambda x: AsItIs.apply(x).exp().sum()
    assert_close(vmap(grad(loss))(x), 3 * x.exp())
    assert_close(vmap(push(grad(loss)))(x), 3 * x.exp() * x.cos())
    diagonal = torch.stack([torch.diag_embed(row) for row in 3 * x[:, 0].exp()])
    assert_close(vmap(hessian(loss))(x[:, 0]), diagonal)
    assert_close(vmap(jacrev(jacrev(loss)))(x[:, 0]), 3 * diagonal)
    assert_close(grad(lambda x: push(loss)(x))(x[0]), x[0].exp() * (3 * x[0].cos() - x[0].sin()))
