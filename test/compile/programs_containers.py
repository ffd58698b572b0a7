"""Containers that programs register, and those of Python's own."""

import collections
import dataclasses

import torch
from torch.utils import _pytree as pytree

from test.compile.corpus import program, rand

Point = collections.namedtuple("Point", ["x", "y"])


@dataclasses.dataclass
class State:
    position: torch.Tensor
    momentum: torch.Tensor


pytree.register_dataclass(State)


class Pair:
    def __init__(self, a, b, name):
        self.a, self.b, self.name = a, b, name


pytree.register_pytree_node(
    Pair, lambda p: ([p.a, p.b], p.name), lambda children, name: Pair(*children, name)
)


@program
def namedtuple_mapped(t):
    f = lambda x, y: t.F.vmap(lambda p: Point(p.x * p.y, p.x.sum()))(Point(x, y))
    return f, (rand(3, 4), rand(3, 4))


@program
def namedtuple_differentiated(t):
    f = lambda x, y: t.F.grad(lambda p: (p.x.sin() * p.y).sum())(Point(x, y))
    return f, (rand(4), rand(4))


@program
def dataclass_mapped(t):
    def f(x, y):
        out = t.F.vmap(lambda s: State(s.position + s.momentum, s.momentum * 2))(State(x, y))
        return out.position, out.momentum

    return f, (rand(3, 4), rand(3, 4))


@program
def dataclass_differentiated(t):
    def f(x, y):
        energy = lambda s: (s.momentum**2).sum() + s.position.sin().sum()
        out = t.F.grad(energy)(State(x, y))
        return out.position, out.momentum

    return f, (rand(4), rand(4))


@program
def dataclass_argument(t):
    def f(state):
        out = t.F.jvp(lambda s: State(s.position * s.momentum, s.momentum), (state,), (state,))[1]
        return out.position, out.momentum

    return f, (State(rand(4), rand(4)),)


@program
def registered_mapped(t):
    def f(x, y):
        out = t.F.vmap(lambda p: Pair(p.b, p.a.sum(), p.name))(Pair(x, y, "of this name"))
        return out.a, out.b

    return f, (rand(3, 4), rand(3, 4))


@program
def registered_in_jacobian(t):
    def f(x, y):
        out = t.F.jacrev(lambda p: p.a * p.b.sum())(Pair(x, y, "of this name"))
        return out.a, out.b

    return f, (rand(4), rand(4))


@program
def registered_as_aux(t):
    def f(x):
        gradient, aux = t.F.grad(lambda x: (x.sin().sum(), Pair(x, x * 2, "aux")), has_aux=True)(x)
        return gradient, aux.a, aux.b

    return f, (rand(4),)


@program
def ordered_and_default_dicts(t):
    def f(x, y):
        d = collections.OrderedDict(b=x, a=y)
        e = collections.defaultdict(list, k=x)
        return t.F.vmap(lambda d, e: {"r": d["b"] * d["a"], "s": e["k"].sum()})(d, e)

    return f, (rand(3, 4), rand(3, 4))


@program
def empty_and_none(t):
    f = lambda x: t.F.vmap(lambda x, rest: (x * 2, rest, ()), (0, None), (0, None, None))(x, [None])
    return f, (rand(3, 4),)


@program
def numbers_in_aux(t):
    f = lambda x: t.F.grad(lambda x: (x.sin().sum(), {"n": 3, "b": True, "x": x}), has_aux=True)(x)
    return f, (rand(4),)


@program
def list_of_parameters(t):
    f = lambda ps, x: t.F.grad(lambda ps: sum((p * x).sin().sum() for p in ps))(ps)
    return f, ([rand(4), rand(4), rand(1)], rand(4))
