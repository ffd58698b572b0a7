"""Custom autograd functions inside vmap: their own backward and jvp are used, on every plane."""

import warnings

import numpy
import pytest
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

import functorch_ext
from functorch_ext import grad, jacfwd, jacrev, jvp, vjp, vmap
from test.oracle import assert_close, loop, rand
from test.state import failure

# Each function has a derivative that nobody would derive from its forward.


class Scaled(Function):
    """x * factor, in the style with ctx in forward; its derivative is 3 * x * factor."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        ctx.factor = factor
        return x * factor

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 3 * cotangent * x * ctx.factor, None

    @staticmethod
    def jvp(ctx, tangent, _):
        (x,) = ctx.saved_tensors
        return 3 * tangent * x * ctx.factor


class Product(Function):
    """(x @ w, its sign, a count), with setup_context; a broadcast gradient for w."""

    @staticmethod
    def forward(x, w, count=2):
        y = x * w
        return y, y.sign(), count

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, w, count = inputs
        y, sign, _ = output
        ctx.mark_non_differentiable(sign)
        ctx.save_for_backward(x, w, y)
        ctx.save_for_forward(x, w, y)
        ctx.sign = {"sign": [sign, count]}

    @staticmethod
    def backward(ctx, cotangent, *_):
        x, w, y = ctx.saved_tensors
        sign, count = ctx.sign["sign"]
        gradient_x = cotangent * w * sign * count if ctx.needs_input_grad[0] else None
        gradient_w = (cotangent * x * y)[None] if ctx.needs_input_grad[1] else None
        return gradient_x, gradient_w, None

    @staticmethod
    def jvp(ctx, x_tangent, w_tangent, _):
        x, w, y = ctx.saved_tensors
        sign, count = ctx.sign["sign"]
        total = torch.zeros_like(y)
        if x_tangent is not None:
            total = total + x_tangent * w * sign * count
        if w_tangent is not None:
            total = total + w_tangent * x * y
        return total, None, None


class Exponential(Function):
    """exp, which saves its output and an intermediate; its derivative is 2 * exp."""

    @staticmethod
    def forward(ctx, x):
        half = (x / 2).exp()
        y = half * half
        ctx.save_for_backward(y, half)
        ctx.save_for_forward(y)
        return y

    @staticmethod
    def backward(ctx, cotangent):
        y, half = ctx.saved_tensors
        return cotangent * (y + half * half)

    @staticmethod
    def jvp(ctx, tangent):
        (y,) = ctx.saved_tensors
        return 2 * tangent * y


class ExponentialWithSetup(Function):
    """The same, with setup_context and without the intermediate."""

    @staticmethod
    def forward(x):
        return x.exp()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def vjp(ctx, cotangent):
        (y,) = ctx.saved_tensors
        return cotangent * 2 * y

    jvp = Exponential.jvp


class Generated(ExponentialWithSetup):
    generate_vmap_rule = True


class NumpySine(Function):
    """sin through numpy, with a vmap staticmethod; its derivative is 2 * cos."""

    @staticmethod
    def forward(x):
        return torch.from_numpy(numpy.sin(x.detach().numpy()))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 2 * cotangent * x.cos()

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return 2 * tangent * x.cos()

    @staticmethod
    def vmap(info, in_dims, x):
        assert info.randomness == "error" and x.shape[in_dims[0]] == info.batch_size
        return NumpySine.apply(x.movedim(in_dims[0], -1)), -1


FACTOR = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
UNARY = {
    "scaled": lambda x: Scaled.apply(x, 5.0),
    "product": lambda x: Product.apply(x, x.sin())[0],
    "product with a shared factor": lambda x: Product.apply(x, FACTOR)[0],
    "exponential": Exponential.apply,
    "exponential with setup": ExponentialWithSetup.apply,
    "generated": Generated.apply,
    "numpy": NumpySine.apply,
    "composed": lambda x: Scaled.apply(Exponential.apply(x.sin()) * x, 2.0).cos(),
}


@pytest.fixture(params=UNARY)
def function(request):
    return UNARY[request.param]


def plain_gradient(function, *args):
    args = [x.detach().clone().requires_grad_() for x in args]
    return torch.autograd.grad(function(*args), args[0])[0]


def total(mapped):
    """A scalar of what `mapped` gives; nonlinear, so that the cotangents differ."""
    return lambda x: mapped(x.sin()).square().sum()


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


class Once(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 3 * cotangent * x.cos()


@pytest.mark.parametrize("nest", [lambda f: vmap(f), lambda f: vmap(vmap(f))])
def test_once_differentiable(nest):
    x = rand(2, 4, 3)
    first = grad(lambda x: nest(Once.apply)(x).square().sum())
    assert_close(first(x), 6 * x.sin() * x.cos())
    x.requires_grad_()
    found = torch.autograd.grad(nest(Once.apply)(x).square().sum(), x, create_graph=True)[0]
    assert "once_differentiable" in failure(found.sum().backward, RuntimeError)


class Doubled(Function):
    """Doubles its argument in place."""

    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, cotangent):
        return 7 * cotangent


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
