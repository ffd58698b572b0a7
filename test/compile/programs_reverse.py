"""``grad``, ``grad_and_value`` and ``vjp``."""

import torch

from test.compile.corpus import program, rand


@program
def plain(t):
    return lambda x: t.F.grad(lambda x: x.sin().sum())(x) * 2, (rand(4),)


@program
def made_before(t):
    return t.F.grad(lambda x: (x**3).sum()), (rand(4),)


@program
def argnums(t):
    f = lambda x, y: t.F.grad(lambda x, y: (x * y.sin()).sum(), argnums=(1, 0))(x, y)
    return f, (rand(4), rand(4))


@program
def negative_argnum(t):
    return lambda x, y: t.F.grad(lambda x, y: (x * y.sin()).sum(), argnums=-1)(x, y), (
        rand(4),
        rand(4),
    )


@program
def aux(t):
    f = lambda x: t.F.grad(lambda x: ((x**2).sum(), (x.sin(), {"k": x * 2})), has_aux=True)(x)
    return f, (rand(4),)


@program
def and_value(t):
    return lambda x: t.F.grad_and_value(lambda x: x.exp().sum())(x), (rand(4),)


@program
def and_value_with_aux(t):
    f = lambda x: t.F.grad_and_value(lambda x: (x.exp().sum(), x + 1), has_aux=True)(x)
    return f, (rand(4),)


@program
def of_dict(t):
    f = lambda x, y: t.F.grad(lambda p: (p["a"] * p["b"]["c"].cos()).sum())({"a": x, "b": {"c": y}})
    return f, (rand(4), rand(4))


@program
def unused_input(t):
    return lambda x, y: t.F.grad(lambda x, y: x.sum(), argnums=(0, 1))(x, y), (rand(4), rand(3))


@program
def second(t):
    return lambda x: t.F.grad(lambda x: t.F.grad(lambda x: x**4)(x))(x), (rand(4)[0],)


@program
def third(t):
    return lambda x: t.F.grad(t.F.grad(t.F.grad(torch.sin)))(x), (rand(4)[0],)


@program
def perturbation_confusion(t):
    f = lambda x: t.F.grad(lambda x: x * t.F.grad(lambda y: x * y)(torch.ones_like(x)))(x)
    return f, (rand(4)[0],)


@program
def closure_over_argument(t):
    return lambda x, w: t.F.grad(lambda x: (w @ x).tanh().sum())(x) + w.sum(0), (
        rand(4),
        rand(2, 4),
    )


@program
def under_no_grad(t):
    def f(x):
        with torch.no_grad():
            return t.F.grad(lambda x: x.sin().sum())(x) * 2

    return f, (rand(4),)


@program
def no_grad_inside(t):
    def loss(x):
        with torch.no_grad():
            scale = x.norm()
        return (x.sin() * scale).sum()

    def f(x):
        with torch.no_grad():
            return t.F.grad(loss)(x)

    return f, (rand(4),)


@program
def detach_inside(t):
    return lambda x: t.F.grad(lambda x: (x.detach() * x.sin()).sum())(x), (rand(4),)


@program
def differentiated_outside(t):
    def f(x):
        y = t.F.grad(lambda x: (x.sin() ** 2).sum())(x)
        y.sum().backward()
        return y * 1

    return f, (rand(4).requires_grad_(),)


@program
def vjp(t):
    def f(x, v):
        out, pullback = t.F.vjp(torch.sin, x)
        return out, pullback(v)

    return f, (rand(4), rand(4))


@program
def vjp_with_aux(t):
    def f(x, v):
        out, pullback, aux = t.F.vjp(lambda x: (x.sin(), x * 2), x, has_aux=True)
        return out, pullback(v), aux

    return f, (rand(4), rand(4))


@program
def vjp_of_several(t):
    def f(x, y, v):
        out, pullback = t.F.vjp(lambda x, y: {"a": x * y, "b": x.sum()}, x, y)
        return out, pullback({"a": v, "b": v[0]}), pullback({"a": v * 2, "b": v[1]})

    return f, (rand(4), rand(4), rand(4))


@program
def vmapped_pullback(t):
    def f(x, basis):
        _, pullback = t.F.vjp(lambda x: x.sin() * x.sum(), x)
        return t.F.vmap(pullback)(basis)

    return f, (rand(4), rand(3, 4))


@program
def custom_function(t):
    return lambda x: t.F.grad(lambda x: Doubled.apply(x).sum())(x), (rand(4),)


class Doubled(torch.autograd.Function):
    """A square whose derivative is told wrong, to see that it is used."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * ctx.saved_tensors[0] * 10


@program
def in_place(t):
    def loss(x):
        y = x * 2
        y[1:].mul_(x[1:])
        y.add_(1)
        return y.sum()

    return lambda x: t.F.grad(loss)(x), (rand(4),)


@program
def complex_input(t):
    f = lambda x: t.F.grad(lambda x: (x * x.conj()).real.sum())(x)
    return f, (torch.complex(rand(4), rand(4)),)


@program
def two_calls(t):
    g = t.F.grad(lambda x: x.sin().sum())
    return lambda x: g(x) + g(x * 2), (rand(4),)


@program
def of_mapped(t):
    return lambda x: t.F.grad(lambda x: t.F.vmap(lambda r: r.sin().prod())(x).sum())(x), (
        rand(3, 4),
    )


@program
def checkpointed(t):
    from torch.utils.checkpoint import checkpoint

    loss = lambda x: checkpoint(lambda x: x.sin().exp(), x, use_reentrant=False).sum()
    return lambda x: t.F.grad(loss)(x), (rand(4),)
