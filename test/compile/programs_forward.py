"""``jvp``, ``linearize`` and ``functionalize``."""

import torch
from torch import nn

from test.compile.corpus import program, rand
from test.compile.programs_reverse import Doubled


@program
def jvp(t):
    return lambda x, v: t.F.jvp(torch.sin, (x,), (v,)), (rand(4), rand(4))


@program
def jvp_of_several(t):
    f = lambda x, y, v: t.F.jvp(lambda x, y: (x * y, x.sin()), (x, y), (v, v * 2))
    return f, (rand(4), rand(4), rand(4))


@program
def jvp_with_aux(t):
    f = lambda x, v: t.F.jvp(lambda x: (x.sin(), x * 2), (x,), (v,), has_aux=True)
    return f, (rand(4), rand(4))


@program
def jvp_of_dict(t):
    f = lambda x, v: t.F.jvp(
        lambda d: {"o": d["a"] ** 2 * d["b"]}, ({"a": x, "b": v},), ({"a": v, "b": x},)
    )
    return f, (rand(4), rand(4))


@program
def jvp_of_closure(t):
    return lambda x, v, w: t.F.jvp(lambda x: (w @ x).tanh(), (x,), (v,)), (
        rand(4),
        rand(4),
        rand(2, 4),
    )


@program
def jvp_of_constant(t):
    return lambda x, v: t.F.jvp(lambda x: torch.ones_like(x), (x,), (v,)), (rand(4), rand(4))


@program
def jvp_twice(t):
    f = lambda x, v: t.F.jvp(lambda x: t.F.jvp(lambda x: x**3, (x,), (v,))[1], (x,), (v,))[1]
    return f, (rand(4), rand(4))


@program
def jvp_of_grad(t):
    f = lambda x, v: t.F.jvp(t.F.grad(lambda x: x.sin().prod()), (x,), (v,))[1]
    return f, (rand(4), rand(4))


@program
def grad_of_jvp(t):
    f = lambda x, v: t.F.grad(lambda x: t.F.jvp(lambda x: x.sin().prod(), (x,), (v,))[1])(x)
    return f, (rand(4), rand(4))


@program
def mapped_jvp(t):
    f = lambda x, vs: t.F.vmap(lambda v: t.F.jvp(lambda x: x.sin() * x.sum(), (x,), (v,))[1])(vs)
    return f, (rand(4), rand(3, 4))


@program
def jvp_of_mapped(t):
    f = lambda x, v: t.F.jvp(t.F.vmap(lambda x: x.softmax(0)), (x,), (v,))
    return f, (rand(3, 4), rand(3, 4))


@program
def jvp_of_custom_function(t):
    f = lambda x, v: t.F.jvp(lambda x: Doubled.apply(x), (x,), (v,))
    return f, (rand(4), rand(4))


@program
def jvp_of_layer(t):
    layer = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.GELU()).double()
    return lambda x, v: t.F.jvp(layer, (x,), (v,)), (rand(2, 4), rand(2, 4))


@program
def jvp_differentiated_outside(t):
    def f(x, v):
        y = t.F.jvp(lambda x: x.sin() * x, (x,), (v,))[1]
        y.sum().backward()
        return y * 1

    return f, (rand(4).requires_grad_(), rand(4))


@program
def linearize(t):
    def f(x, v):
        out, push = t.F.linearize(lambda x: x.sin() * x.sum(), x)
        return out, push(v), push(v * 2)

    return f, (rand(4), rand(4))


@program
def linearize_of_dict(t):
    def f(x, v):
        out, push = t.F.linearize(lambda d: {"o": d["a"].exp()}, {"a": x})
        return out, push({"a": v})

    return f, (rand(4), rand(4))


@program
def functionalized(t):
    def write(x):
        y = x.clone()
        y.diagonal().mul_(2)
        return y

    return lambda x: t.F.functionalize(write)(x) + 1, (rand(3, 3),)


@program
def grad_of_functionalized(t):
    def write(x):
        y = x.clone()
        y.diagonal().mul_(x[0])
        return y.sum()

    return lambda x: t.F.grad(t.F.functionalize(write))(x) + 1, (rand(3, 3),)
