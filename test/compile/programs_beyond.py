"""What torch.func doesn't have."""

import torch

from test.compile.corpus import program, rand
from test.compile.programs_modules import network

_NUMBER = lambda x: (x.sin() * x.sum()).prod()


@program
def hvp(t):
    return lambda x, v: t.F.hvp(_NUMBER)(x, v), (rand(4), rand(4))


@program
def vhp(t):
    return lambda x, v: t.F.vhp(_NUMBER)(x, v), (rand(4), rand(4))


@program
def hessian_diag(t):
    return lambda x: t.F.hessian_diag(_NUMBER)(x), (rand(4),)


@program
def laplacian(t):
    return lambda x: t.F.vmap(t.F.laplacian(_NUMBER))(x), (rand(3, 4),)


@program
def generalized_gauss_newton(t):
    model = lambda w: (w.sin() * w.sum()).outer(w)
    f = lambda w, v: t.F.ggnvp(model, lambda out: out.square().sum())(w, v)
    return f, (rand(4), rand(4))


@program
def per_sample_grads(t):
    net = network()
    f = lambda x, y: t.F.per_sample_grads(net, torch.nn.functional.mse_loss)(x, y)
    return f, (rand(3, 4), rand(3, 2))


@program
def per_sample_grad_norms(t):
    net = network()
    f = lambda x, y: t.F.per_sample_grad_norms(net, torch.nn.functional.mse_loss)(x, y)
    return f, (rand(3, 4), rand(3, 2))


@program
def clipped_grad_sum(t):
    net = network()
    loss = torch.nn.functional.mse_loss
    f = lambda x, y: t.F.clipped_grad_sum(net, loss, max_norm=0.5)(x, y)
    return f, (rand(3, 4), rand(3, 2))


@program
def mapped_keywords(t):
    f = lambda x, y: t.F.vmap(lambda x, *, y: x * y, kwarg_dims={"y": 1})(x, y=y)
    return f, (rand(3, 4), rand(4, 3))


@program
def number_of_samples(t):
    f = lambda x: t.F.vmap(lambda: x.sin(), axis_size=x.shape[0])()
    return f, (rand(3, 4),)


@program
def jvp_of_container_with_strict(t):
    f = lambda x: t.F.jvp(lambda d: d["a"].exp(), ({"a": x},), ({"a": x},), strict=True)
    return f, (rand(4),)
