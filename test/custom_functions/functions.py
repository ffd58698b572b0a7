"""Custom autograd functions for the tests, with derivatives unlike those of their forward."""

import numpy
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable


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


class Once(Function):
    """sin, whose derivative, 3 * cos, can't be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 3 * cotangent * x.cos()


class NumpyBackward(Once):
    """The same with a backward in numpy; the derivative is 2 * cos."""

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(2 * cotangent.numpy() * numpy.cos(x.numpy()))


class Doubled(Function):
    """Doubles its argument in place; its derivative is 7."""

    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, cotangent):
        return 7 * cotangent


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


def plain_gradient(function, *args):
    args = [x.detach().clone().requires_grad_() for x in args]
    return torch.autograd.grad(function(*args), args[0])[0]


def total(mapped):
    """A scalar of what `mapped` gives; nonlinear, so that the cotangents differ."""
    return lambda x: mapped(x.sin()).square().sum()


class Adjoint(Function):
    """Its backward differentiates `func`, which closes over the parameters, by them."""

    @staticmethod
    def forward(ctx, func, x, *parameters):
        ctx.func = func
        ctx.save_for_backward(x, *parameters)
        return func(x)

    @staticmethod
    def backward(ctx, cotangent):
        x, *parameters = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            inputs = (x, *parameters)
            found = torch.autograd.grad(ctx.func(x), inputs, cotangent, allow_unused=True)
        return None, *found
