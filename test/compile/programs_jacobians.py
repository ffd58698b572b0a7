"""``jacrev``, ``jacfwd`` and ``hessian``."""

import torch
from torch import nn

from test.compile.corpus import program, rand

_FUNCTION = lambda x: x.sin() * x.sum()
_NUMBER = lambda x: (x.sin() * x.sum()).prod()


@program
def jacrev(t):
    return lambda x: t.F.jacrev(_FUNCTION)(x) * 2, (rand(4),)


@program
def jacrev_made_before(t):
    return t.F.jacrev(_FUNCTION), (rand(4),)


@program
def jacfwd(t):
    return lambda x: t.F.jacfwd(_FUNCTION)(x) * 2, (rand(4),)


@program
def jacfwd_made_before(t):
    return t.F.jacfwd(_FUNCTION), (rand(4),)


@program
def hessian(t):
    return lambda x: t.F.hessian(_NUMBER)(x) * 2, (rand(4),)


@program
def hessian_made_before(t):
    return t.F.hessian(_NUMBER), (rand(4),)


@program
def jacrev_of_several(t):
    f = lambda x, y: t.F.jacrev(lambda x, y: {"a": x * y, "b": x.sum()}, argnums=(0, 1))(x, y)
    return f, (rand(4), rand(4))


@program
def jacfwd_of_several(t):
    f = lambda x, y: t.F.jacfwd(lambda x, y: (x * y, x.sum()), argnums=(0, 1))(x, y)
    return f, (rand(4), rand(4))


@program
def hessian_of_dict(t):
    f = lambda x, y: t.F.hessian(lambda d: (d["a"] * d["b"].sin()).sum())({"a": x, "b": y})
    return f, (rand(3), rand(3))


@program
def jacrev_with_aux(t):
    f = lambda x: t.F.jacrev(lambda x: (x.sin(), x * 2), has_aux=True)(x)
    return f, (rand(4),)


@program
def jacfwd_with_aux(t):
    f = lambda x: t.F.jacfwd(lambda x: (x.sin(), x * 2), has_aux=True)(x)
    return f, (rand(4),)


@program
def jacrev_in_chunks(t):
    return lambda x: t.F.jacrev(_FUNCTION, chunk_size=3)(x), (rand(4),)


@program
def jacfwd_in_chunks(t):
    return lambda x: t.F.jacfwd(_FUNCTION, chunk_size=3)(x), (rand(4),)


@program
def jacfwd_with_draws(t):
    f = lambda x: t.F.jacfwd(lambda x: x * torch.rand(4), randomness="same")(x)
    return f, (rand(4),)


@program
def jacrev_of_matrix(t):
    return lambda x: t.F.jacrev(lambda x: x @ x)(x), (rand(3, 3),)


@program
def jacrev_of_jacfwd(t):
    return lambda x: t.F.jacrev(t.F.jacfwd(_NUMBER))(x), (rand(3),)


@program
def jacfwd_of_jacfwd(t):
    return lambda x: t.F.jacfwd(t.F.jacfwd(_NUMBER))(x), (rand(3),)


@program
def jacrev_of_jacrev(t):
    return lambda x: t.F.jacrev(t.F.jacrev(_NUMBER))(x), (rand(3),)


@program
def third_derivatives(t):
    return lambda x: t.F.jacfwd(t.F.hessian(_NUMBER))(x), (rand(3),)


@program
def closure(t):
    return lambda x, w: t.F.jacrev(lambda x: (w @ x).tanh())(x), (rand(4), rand(2, 4))


@program
def mapped_jacrev(t):
    return lambda x: t.F.vmap(t.F.jacrev(_FUNCTION))(x), (rand(3, 4),)


@program
def mapped_hessian(t):
    return lambda x: t.F.vmap(t.F.hessian(_NUMBER))(x), (rand(3, 4),)


@program
def hessian_of_network(t):
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    return lambda x: t.F.hessian(lambda x: net(x).squeeze())(x), (rand(4),)


@program
def laplacian(t):
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    f = lambda x: t.F.vmap(lambda x: t.F.hessian(lambda x: net(x).squeeze())(x).trace())(x)
    return f, (rand(3, 2),)


@program
def differentiated_outside(t):
    def f(x):
        y = t.F.jacrev(_FUNCTION)(x)
        y.sum().backward()
        return y * 1

    return f, (rand(4).requires_grad_(),)


@program
def grad_of_jacfwd(t):
    return lambda x: t.F.grad(lambda x: t.F.jacfwd(_FUNCTION)(x).sin().sum())(x), (rand(4),)


@program
def grad_of_laplacian(t):
    f = lambda x: t.F.grad(lambda x: t.F.hessian(_NUMBER)(x).trace())(x)
    return f, (rand(4),)


@program
def indices(t):
    f = lambda x, i: t.F.jacrev(lambda x: x[i] * x[0])(x)
    return f, (rand(4), torch.tensor([2, 1, 2]))
