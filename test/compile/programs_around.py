"""Transforms around compiled functions and modules."""

import torch
from torch import nn

from test.compile.corpus import program, rand
from test.compile.programs_modules import network

_VECTOR = lambda x: x.sin() * x.sum()
_NUMBER = lambda x: (x.sin() * x.sum()).prod()


def _used_before(function, *args):
    function(*args)
    return function


@program
def vmap(t):
    return t.F.vmap(t.compiled(_VECTOR)), (rand(3, 4),)


@program
def grad(t):
    return t.F.grad(t.compiled(_NUMBER)), (rand(4),)


@program
def vjp(t):
    f = t.compiled(_VECTOR)
    return lambda x: t.F.vjp(f, x)[1](x)[0], (rand(4),)


@program
def jvp(t):
    f = t.compiled(_VECTOR)
    return lambda x: t.F.jvp(f, (x,), (x,)), (rand(4),)


@program
def jacrev(t):
    return t.F.jacrev(t.compiled(_VECTOR)), (rand(4),)


@program
def jacfwd(t):
    return t.F.jacfwd(t.compiled(_VECTOR)), (rand(4),)


@program
def hessian(t):
    return t.F.hessian(t.compiled(_NUMBER)), (rand(4),)


@program
def vmap_used_before(t):
    return t.F.vmap(_used_before(t.compiled(_VECTOR), rand(4))), (rand(3, 4),)


@program
def grad_used_before(t):
    return t.F.grad(_used_before(t.compiled(_NUMBER), rand(4).requires_grad_())), (rand(4),)


@program
def jvp_used_before(t):
    f = _used_before(t.compiled(_VECTOR), rand(4))
    return lambda x: t.F.jvp(f, (x,), (x,)), (rand(4),)


@program
def jacrev_used_before(t):
    return t.F.jacrev(_used_before(t.compiled(_VECTOR), rand(4).requires_grad_())), (rand(4),)


@program
def jacfwd_used_before(t):
    return t.F.jacfwd(_used_before(t.compiled(_VECTOR), rand(4))), (rand(4),)


@program
def hessian_used_before(t):
    return t.F.hessian(_used_before(t.compiled(_NUMBER), rand(4).requires_grad_())), (rand(4),)


@program
def second_gradient(t):
    f = t.compiled(lambda x: x**4)
    return t.F.grad(t.F.grad(f)), (rand(4)[0],)


@program
def jacrev_of_grad(t):
    return t.F.jacrev(t.F.grad(t.compiled(_NUMBER))), (rand(4),)


@program
def mapped_grad(t):
    return t.F.vmap(t.F.grad(t.compiled(_NUMBER))), (rand(3, 4),)


@program
def grad_of_mapped(t):
    f = t.compiled(lambda x: x.prod())
    return t.F.grad(lambda x: t.F.vmap(f)(x).sin().sum()), (rand(3, 4),)


@program
def functionalized(t):
    def write(x):
        y = x.clone()
        y[0] = 1
        return y * x

    return t.F.functionalize(t.compiled(write)), (rand(4),)


@program
def linearize(t):
    f = t.compiled(_VECTOR)
    return lambda x: t.F.linearize(f, x)[1](x), (rand(4),)


@program
def module(t):
    return t.F.vmap(t.F.jacrev(t.compiled(network()))), (rand(3, 4),)


@program
def module_called_before(t):
    net = t.compiled(network())
    net(rand(3, 4))
    return t.F.vmap(t.F.jacfwd(net)), (rand(3, 4),)


@program
def functional_call_of_module(t):
    net = network()
    compiled = t.compiled(net)
    loss = lambda p, x: t.F.functional_call(net, p, (x,)).square().sum() + 0 * compiled(x).sum()
    return t.F.vmap(t.F.grad(loss), (None, 0)), (
        {k: v.detach() for k, v in net.named_parameters()},
        rand(3, 4),
    )


@program
def closure_over_module(t):
    net = network()
    f = t.compiled(lambda x: net(x).square().sum())
    return t.F.vmap(t.F.grad(f)), (rand(3, 4),)


@program
def compiled_transform_inside(t):
    inner = t.compiled(t.F.grad(_NUMBER))
    return t.F.jacrev(inner), (rand(4),)


@program
def compiled_mapped_inside(t):
    inner = t.compiled(lambda x: t.F.vmap(torch.sin)(x))
    return t.F.vmap(inner), (rand(2, 3, 4),)


@program
def partly_compiled(t):
    f = t.compiled(torch.sin)
    return t.F.hessian(lambda x: (f(x) * x).sum()), (rand(4),)


@program
def then_compiled_again_outside(t):
    f = t.compiled(_VECTOR)
    return lambda x: (f(x), t.F.vmap(f)(x[None]), f(x * 2)), (rand(4),)


@program
def two_compiled_functions_share_parameters(t):
    weight = nn.Parameter(rand(4))
    f, g = t.compiled(lambda x: (weight * x).sum()), t.compiled(lambda x: (weight * x).cos().sum())
    return lambda x: (t.F.grad(f)(x), t.F.jacfwd(t.F.grad(g))(x), f(x), g(x)), (rand(4),)


@program
def new_shapes(t):
    f = t.compiled(_VECTOR)
    return lambda x: [t.F.jacrev(f)(x[:n]) for n in (2, 3, 4)] + [f(x[:2])], (rand(4),)


@program
def in_custom_backward(t):
    f = t.compiled(lambda c, x: c * x.cos())

    class Sine(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x.sin()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, cotangent):
            return f(cotangent, *ctx.saved_tensors)

    return t.F.vmap(t.F.jacrev(lambda x: Sine.apply(x))), (rand(3, 4),)


@program
def in_thread(t):
    import threading

    f = t.compiled(_VECTOR)

    def sample(x):
        out = []
        thread = threading.Thread(target=lambda: out.append(f(x)))
        thread.start()
        thread.join()
        return out[0]

    return t.F.vmap(sample), (rand(3, 4),)
