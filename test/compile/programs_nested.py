"""Nestings, and what Dynamo makes of functions that transforms are given or return."""

import functools

import torch

from test.compile.corpus import program, rand
from test.compile.programs_reverse import Doubled

_LOSS = lambda x: (x.sin() * x.sum()).prod()


@program
def mapped_grad(t):
    return lambda x: t.F.vmap(t.F.grad(_LOSS))(x.cos()) + 1, (rand(3, 4),)


@program
def mapped_grad_made_before(t):
    return t.F.vmap(t.F.grad(_LOSS)), (rand(3, 4),)


@program
def mapped_grad_shared_weight(t):
    f = lambda w, x: t.F.vmap(t.F.grad(lambda w, x: (w @ x).tanh().sum()), (None, 0))(w, x)
    return f, (rand(2, 4), rand(3, 4))


@program
def mapped_vjp(t):
    def sample(x, v):
        _, pullback = t.F.vjp(lambda x: x.sin() * x.sum(), x)
        return pullback(v)[0]

    return lambda x, v: t.F.vmap(sample)(x, v), (rand(3, 4), rand(3, 4))


@program
def mapped_mapped_grad(t):
    return lambda x: t.F.vmap(t.F.vmap(t.F.grad(_LOSS)))(x), (rand(2, 3, 4),)


@program
def grad_of_mapped_grad(t):
    f = lambda x: t.F.grad(lambda x: t.F.vmap(t.F.grad(_LOSS))(x).sin().sum())(x)
    return f, (rand(3, 4),)


@program
def grad_closes_over_sample(t):
    def sample(x, y):
        return t.F.grad(lambda w: ((w * x).sum() - y.sum()) ** 2)(y)

    return lambda x, y: t.F.vmap(sample)(x, y), (rand(3, 4), rand(3, 4))


@program
def three_deep_closure(t):
    def f(w, x):
        g = lambda x: t.F.grad(lambda w: t.F.vmap(lambda v: (w * x * v).sum())(w.outer(x)).sum())(w)
        return t.F.vmap(g)(x)

    return f, (rand(4), rand(3, 4))


@program
def hvp_forward_over_reverse(t):
    f = lambda x, v: t.F.jvp(t.F.grad(_LOSS), (x,), (v,))[1]
    return f, (rand(4), rand(4))


@program
def hvp_reverse_over_reverse(t):
    f = lambda x, v: t.F.grad(lambda x: torch.vdot(t.F.grad(_LOSS)(x), v))(x)
    return f, (rand(4), rand(4))


@program
def hvp_by_vjp(t):
    f = lambda x, v: t.F.vjp(t.F.grad(_LOSS), x)[1](v)[0]
    return f, (rand(4), rand(4))


@program
def transform_as_argument(t):
    def apply(transform, function, x):
        return transform(function)(x)

    return lambda x: apply(t.F.grad, _LOSS, x) + apply(t.F.jacrev, torch.sin, x).sum(0), (rand(4),)


@program
def composed(t):
    compose = lambda *fs: functools.reduce(lambda f, g: lambda x: g(f(x)), fs)
    f = compose(t.F.vmap(torch.sin), t.F.vmap(t.F.grad(_LOSS)), torch.sum)
    return f, (rand(3, 4),)


@program
def transform_in_dict(t):
    table = {"a": t.F.vmap(torch.sin), "b": t.F.grad(_LOSS)}
    return lambda x: table["a"](x).sum(0) + table["b"](x[0]), (rand(3, 4),)


@program
def decorated(t):
    @functools.partial(t.F.vmap, in_dims=(0, None))
    def f(x, w):
        return (x * w).sum()

    return lambda x, w: f(x, w).cos(), (rand(3, 4), rand(4))


@program
def loop_of_gradients(t):
    def f(x):
        for _ in range(3):
            x = x - 0.1 * t.F.grad(_LOSS)(x)
        return x

    return f, (rand(4),)


@program
def graph_break_before_and_after(t):
    def f(x):
        x = x.sin()
        torch._dynamo.graph_break()
        y = t.F.vmap(t.F.grad(_LOSS))(x)
        torch._dynamo.graph_break()
        return y + x

    return f, (rand(3, 4),)


@program
def graph_break_inside(t):
    def loss(x):
        y = x.sin()
        torch._dynamo.graph_break()
        return (y * x).sum()

    return lambda x: t.F.vmap(t.F.grad(loss))(x.cos()) + 1, (rand(3, 4),)


@program
def print_inside(t):
    def loss(x):
        seen.append(x.shape)
        return x.sin().sum()

    seen = []
    return lambda x: t.F.grad(loss)(x.cos()) + 1, (rand(3, 4),)


@program
def made_inside_kept_across_break(t):
    def f(x):
        g = t.F.vmap(t.F.grad(_LOSS))
        y = x.sin()
        torch._dynamo.graph_break()
        return g(y)

    return f, (rand(3, 4),)


@program
def pullback_across_break(t):
    def f(x):
        out, pullback = t.F.vjp(lambda x: x.sin() * x, x)
        torch._dynamo.graph_break()
        return pullback(out)[0]

    return f, (rand(4),)


@program
def returns_function(t):
    def f(x):
        y = x.sin()
        return y, t.F.grad(lambda x: (x * y).sum())

    def call(x):
        y, g = compiled_part(x)
        return g(y)

    compiled_part = f
    return call, (rand(4),)


@program
def custom_function_mapped(t):
    f = lambda x: t.F.vmap(t.F.grad(lambda x: Doubled.apply(x).sum()))(x)
    return f, (rand(3, 4),)


@program
def custom_function_under_forward(t):
    f = lambda x: t.F.hessian(lambda x: (Doubled.apply(x) * x).sum())(x)
    return f, (rand(4),)


@program
def local_autograd_inside(t):
    def sample(x):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(x.sin().sum(), x)
        return g

    return lambda x: t.F.vmap(sample)(x), (rand(3, 4),)


@program
def autocast_inside(t):
    def loss(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return (x.float() @ x.float().t()).float().sum()

    return lambda x: t.F.grad(loss)(x.double()), (rand(3, 4),)


@program
def integers_pass_through(t):
    f = lambda x, i: t.F.vmap(lambda x, i: (x * 2, i + 1))(x, i)
    return f, (rand(3, 4), torch.arange(3))


@program
def namedtuple_output(t):
    f = lambda x: t.F.vmap(lambda x: torch.max(x, 0))(x)
    return f, (rand(3, 4),)


@program
def raises_as_eager(t):
    def f(x):
        try:
            t.F.grad(lambda x: x.sin())(x)
        except RuntimeError:
            return x + 1
        return x

    return f, (rand(4),)


class SavesEverything(torch.autograd.Function):
    """Saves an input, an output, a value computed on the way, and a number."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, y, power):
        between = x.detach() * 2
        out = x.exp() * y
        return out, y * power, between

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, y, ctx.power = inputs
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(x, y, output[0], output[2])

    @staticmethod
    def backward(ctx, c, d, _):
        x, y, out, between = ctx.saved_tensors
        return c * out + d * between.sum() * 0.1, c * x.exp() + d * ctx.power, None


@program
def custom_function_second_derivatives(t):
    loss = lambda x: sum(part.sin().sum() for part in SavesEverything.apply(x, x.cos(), 3))
    return lambda x: (t.F.hessian(loss)(x), t.F.grad(lambda x: t.F.grad(loss)(x).sum())(x)), (
        rand(4),
    )


@program
def custom_function_second_derivatives_mapped(t):
    loss = lambda x: (Doubled.apply(x) * x.sin()).sum()
    return lambda x: t.F.vmap(t.F.jacrev(t.F.grad(loss)))(x), (rand(3, 4),)
