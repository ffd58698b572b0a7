"""Custom functions whose outputs are tensors from outside: the derivatives are those they tell."""

import pytest
import torch
from torch.autograd import Function

from functorch_ext import grad, jacfwd, jacrev, jvp, vjp, vmap
from test.oracle import assert_close

X = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]], dtype=torch.float64)
ONES = torch.ones_like(X[0])
FACTOR = torch.tensor([5.0, 6.0, 7.0], dtype=torch.float64)


def constant():
    return torch.tensor([7.0, 8.0, 9.0], dtype=torch.float64)


class WithContext(Function):
    @staticmethod
    def forward(ctx, x, value):
        ctx.value = value
        return value

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * FACTOR, None


class WithSetup(Function):
    value = None

    @staticmethod
    def forward(x, argument):
        return WithSetup.value, x * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        assert len(output) == 2

    @staticmethod
    def backward(ctx, by_constant, by_double):
        return by_constant * FACTOR + by_double * 2, None

    @staticmethod
    def jvp(ctx, tangent, _):
        return tangent * FACTOR, tangent * 2


class Marks(Function):
    """Its second output, an integer constant, and its third aren't differentiable."""

    @staticmethod
    def forward(ctx, x, value):
        other = value.clone()
        ctx.mark_non_differentiable(other)
        return value, torch.arange(3), other

    @staticmethod
    def backward(ctx, by_value, by_count, by_other):
        assert not by_other.any()
        return by_value * FACTOR, None


def with_setup(x):
    WithSetup.value = constant()
    first, second = WithSetup.apply(x, None)
    WithSetup.value = None
    return first * second.detach()


FUNCTIONS = {
    "ctx": lambda x: WithContext.apply(x, constant()) * 2 * x.detach(),
    "setup_context": with_setup,
    "marks": lambda x: Marks.apply(x, constant())[0] * 2 * x.detach(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_reverse_mode(name):
    func = FUNCTIONS[name]
    expected = 2 * X * FACTOR
    assert_close(vmap(grad(lambda x: func(x).sum()))(X), expected)
    assert_close(vmap(jacrev(func))(X), torch.diag_embed(expected))
    assert_close(vmap(lambda x: vjp(func, x)[1](ONES)[0])(X), expected)
    assert_close(vmap(lambda x: func(x))(X), 2 * X * constant())
    xs = torch.stack([X, X + 1])
    assert_close(vmap(vmap(grad(lambda x: func(x).sum())))(xs), 2 * xs * FACTOR)
    assert_close(grad(lambda x: vmap(func)(x).sum())(X), expected)


def test_forward_mode():
    assert_close(vmap(lambda x: jvp(with_setup, (x,), (ONES,))[1])(X), 2 * X * FACTOR)
    assert_close(vmap(jacfwd(with_setup))(X), torch.diag_embed(2 * X * FACTOR))


def test_the_users_own_pass():
    def func(x):
        w = x.detach().clone().requires_grad_()
        return torch.autograd.grad(FUNCTIONS["ctx"](w).sum(), w)[0]

    assert_close(vmap(func)(X), 2 * X * FACTOR)


def test_the_constant_stays_one():
    value = constant()
    vmap(grad(lambda x: WithContext.apply(x, value).sum()))(X)
    assert not value.requires_grad


def test_outputs_that_are_marked():
    def func(x):
        _, count, other = Marks.apply(x, constant())
        assert not count.requires_grad and not other.requires_grad
        return (x * count * other).sum()

    assert_close(vmap(grad(func))(X), (torch.arange(3) * constant()).expand(2, 3))


def test_an_argument_from_outside_that_is_passed_on():
    class PassedOn(Function):
        @staticmethod
        def forward(ctx, x, w):
            return w, x * w

        @staticmethod
        def backward(ctx, by_w, by_product):
            return by_w * FACTOR + by_product, None

    def func(x):
        first, second = PassedOn.apply(x, ONES)
        return (first + second).sum()

    assert_close(vmap(grad(func))(X), (FACTOR + 1).expand(2, 3))
