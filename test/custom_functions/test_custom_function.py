"""Custom autograd functions inside vmap: their own backward and jvp are used, on every plane."""

import warnings

import pytest
import torch

import functorch_ext
from functorch_ext import grad, jacfwd, jacrev, jvp, vjp, vmap
from test.custom_functions.functions import (
    UNARY,
    Exponential,
    ExponentialWithSetup,
    Product,
    plain_gradient,
    total,
)
from test.oracle import assert_close, loop, rand


@pytest.fixture(params=UNARY)
def function(request):
    return UNARY[request.param]


def test_grad_of_vmap(function):
    x = rand(4, 3)
    expected = plain_gradient(total(loop(function)), x)
    assert_close(grad(total(vmap(function)))(x), expected)


def test_in_dims_and_out_dims(function):
    x = rand(3, 4)
    expected = plain_gradient(total(loop(function, 1, 1)), x)
    assert_close(grad(total(vmap(function, 1, 1)))(x), expected)


def test_grad_of_nested_vmaps(function):
    x = rand(2, 4, 3)
    expected = plain_gradient(total(loop(loop(function))), x)
    assert_close(grad(total(vmap(vmap(function))))(x), expected)
    expected = plain_gradient(total(loop(loop(function), 1)), x)
    assert_close(grad(total(vmap(vmap(function), 1)))(x), expected)


def test_backward_of_a_vmap_with_parameters(function):
    x, w = rand(4, 3), rand(3, requires_grad=True)
    expected = plain_gradient(lambda w: total(loop(lambda x: function(x * w)))(x), w)
    total(vmap(lambda x: function(x * w)))(x).backward()
    assert_close(w.grad, expected)


def test_vmap_of_grad(function):
    x = rand(4, 3)
    expected = loop(lambda x: plain_gradient(total(function), x))(x)
    assert_close(vmap(grad(total(function)))(x), expected)


def nested_gradient(mapped, gradient):
    """The gradient of a function of per-sample gradients (a gradient penalty)."""
    return lambda x: mapped(gradient)(x).sin().sum()


def test_grad_of_vmap_of_grad(function):
    x = rand(4, 3)

    def gradient(x):
        return torch.autograd.grad(total(function)(x), x, create_graph=True)[0]

    expected = plain_gradient(nested_gradient(loop, gradient), x)
    assert_close(grad(nested_gradient(vmap, grad(total(function))))(x), expected)


def test_double_backward(function):
    x = rand(4, 3)

    def penalty(x):
        y = total(loop(function))(x)
        return torch.autograd.grad(y, x, create_graph=True)[0].sin().sum()

    assert_close(
        grad(lambda x: grad(total(vmap(function)))(x).sin().sum())(x), plain_gradient(penalty, x)
    )


def test_vmap_of_grad_of_vmap(function):
    x = rand(2, 4, 3)
    expected = loop(lambda x: plain_gradient(total(loop(function)), x))(x)
    assert_close(vmap(grad(total(vmap(function))))(x), expected)


def test_vjp_and_jacobians(function):
    x, cotangent = rand(2, 3), rand(2, 3)
    rows = [
        plain_gradient(lambda x, i=i: loop(function)(x).reshape(-1)[i], x) for i in range(x.numel())
    ]
    expected = torch.stack(rows).reshape(2, 3, 2, 3)
    pulled = torch.tensordot(cotangent, expected, 2)
    assert_close(vjp(vmap(function), x)[1](cotangent), (pulled,))
    assert_close(jacrev(vmap(function))(x), expected)
    assert_close(jacfwd(vmap(function))(x), expected)
    pushed = torch.tensordot(expected, cotangent, 2)
    assert_close(jvp(vmap(function), (x,), (cotangent,)), (loop(function)(x), pushed))


def test_forward_over_reverse_and_nested_forward():
    x, v, w = rand(4, 3), rand(4, 3), rand(4, 3)
    function = ExponentialWithSetup.apply  # exp, as if each derivative doubled it
    plain = loop(function)(x)
    gradient = grad(lambda x: vmap(function)(x).sum())
    assert_close(jvp(gradient, (x,), (v,)), (2 * plain, 4 * plain * v))

    def pushed(x):
        return jvp(vmap(function), (x,), (v,))[1]

    assert_close(jvp(pushed, (x,), (w,)), (2 * plain * v, 4 * plain * v * w))
    assert_close(grad(lambda x: pushed(x).sum())(x), 4 * plain * v)


def test_shared_arguments_get_the_sum_over_samples():
    x, w = rand(4, 3), rand(3)

    def loss(mapped):
        return lambda w, x: mapped(lambda x, w: Product.apply(x, w)[0], (0, None))(x, w).sin().sum()

    assert_close(grad(loss(vmap))(w, x), plain_gradient(loss(loop), w, x))
    parameter = w.clone().requires_grad_()
    vmap(lambda x: Product.apply(x, parameter)[0].sin())(x).sum().backward()
    assert_close(parameter.grad, plain_gradient(loss(loop), w, x))


@pytest.mark.parametrize("name", ["scaled", "exponential", "exponential with setup", "numpy"])
def test_only_unbatched_tensors(name):
    x, w = rand(4, 3), rand(3)
    function = UNARY[name]

    def loss(mapped):
        return lambda w: mapped(lambda x: function(w) * x)(x).sin().sum()

    assert_close(grad(loss(vmap))(w), plain_gradient(loss(loop), w))

    def inner(w, x):
        return (function(w) * x).sum()

    expected = loop(lambda x: plain_gradient(inner, w, x))(x)
    assert_close(vmap(grad(inner), (None, 0))(w, x), expected)


def test_outside_of_transforms(function):
    x = rand(3, requires_grad=True)
    assert type(function(x)) is torch.Tensor and function(x).requires_grad
    assert Exponential.apply(x).grad_fn.name() == "ExponentialBackward"
    assert not Exponential.apply(x.detach()).requires_grad
    with torch.no_grad():
        assert not function(x).requires_grad


def test_no_grad_inside_vmap():
    x = rand(4, 3)

    def function(x):
        with torch.no_grad():
            constant = Exponential.apply(x)
        return constant * x

    assert_close(grad(lambda x: vmap(function)(x).sum())(x), x.exp())


def test_empty_batch():
    x = rand(0, 3)
    assert_close(grad(lambda x: vmap(Exponential.apply)(x).sum())(x), x)


def test_no_loop_is_used():
    with warnings.catch_warnings():
        warnings.simplefilter("error", functorch_ext.FallbackWarning)
        grad(total(vmap(Exponential.apply)))(rand(4, 3))
