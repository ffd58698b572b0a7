"""Compiled functions that are called again: other shapes, other values, shared parameters."""

import torch
from torch import nn

from test.compile.corpus import program, rand
from test.compile.programs_modules import network

_LOSS = lambda x: (x.sin() * x.sum()).prod()


@program
def new_batch_sizes(t):
    f = t.compiled(t.F.vmap(t.F.grad(_LOSS)))
    return lambda x: [f(x[:n]) for n in (2, 3, 5, 1, 4)], (rand(5, 4),)


@program
def new_sizes_of_samples(t):
    f = t.compiled(lambda x: t.F.hessian(_LOSS)(x) + 1)
    return lambda x: [f(x[:n]) for n in (2, 3, 4, 1)], (rand(4),)


@program
def new_ranks(t):
    f = t.compiled(lambda x: t.F.vmap(lambda x: x.sin().cumsum(0))(x))
    return lambda x: [f(x), f(x[0]), f(x[0, 0][:, None])], (rand(2, 3, 4),)


@program
def new_dtypes(t):
    f = t.compiled(lambda x: t.F.jacfwd(lambda x: x.sin() * x.sum())(x))
    return lambda x: [f(x), f(x.float()).double(), f(x)], (rand(4),)


@program
def new_strides(t):
    f = t.compiled(lambda x: t.F.vmap(t.F.jacrev(lambda x: x.view(-1).sin()))(x))
    return lambda x: [f(x), f(x.t().contiguous().t().contiguous()), f(x[:, ::2].contiguous())], (
        rand(4, 4),
    )


@program
def new_structures(t):
    f = t.compiled(lambda p: t.F.grad(lambda p: sum((v**3).sum() for v in p.values()))(p))
    return lambda x, y: [f({"a": x}), f({"a": x, "b": y}), f({"b": x})], (rand(4), rand(2))


@program
def new_numbers(t):
    f = t.compiled(lambda x, n: t.F.vmap(lambda x, n: x**n, (0, None))(x, n))
    return lambda x: [f(x, n) for n in (1, 2, 3, 0.5, 4)], (rand(3, 4).abs(),)


@program
def new_dims(t):
    f = t.compiled(lambda x, d: t.F.vmap(lambda x: x.cumsum(0), d, d)(x))
    return lambda x: [f(x, d) for d in (0, 1, 2, -1)], (rand(2, 3, 4),)


@program
def new_function(t):
    f = t.compiled(lambda g, x: t.F.vmap(t.F.grad(g))(x))
    functions = (_LOSS, lambda x: x.exp().sum(), torch.sum, lambda x: x.norm())
    return lambda x: [f(g, x) for g in functions], (rand(3, 4),)


@program
def gradients_wanted_or_not(t):
    f = t.compiled(lambda x: t.F.jacrev(lambda x: x.sin() * x.sum())(x))

    def calls(x):
        wanted = x.detach().requires_grad_()
        out = f(wanted)
        (gradient,) = torch.autograd.grad(out.square().sum(), wanted)
        with torch.no_grad():
            without = f(wanted)
        return out, gradient, without, without.requires_grad, f(x).requires_grad

    return calls, (rand(4),)


@program
def closure_replaced(t):
    state = {"w": rand(4)}
    f = t.compiled(lambda x: t.F.vmap(lambda x: (x * state["w"]).sum())(x))

    def calls(x):
        out = [f(x)]
        for factor in (2, 3):
            state["w"] = torch.full((4,), float(factor), dtype=x.dtype)
            out.append(f(x))
        return out

    return calls, (rand(3, 4),)


@program
def closure_written_to(t):
    w = rand(4)
    f = t.compiled(lambda x: t.F.vmap(t.F.grad(lambda x: (x.sin() * w).sum()))(x))

    def calls(x):
        out = [f(x)]
        w.mul_(2)
        out.append(f(x))
        w.div_(2)
        return out

    return calls, (rand(3, 4),)


@program
def parameters_after_steps(t):
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    f = t.compiled(lambda x: t.F.vmap(t.F.jacrev(net))(x).square().sum())

    def steps(x):
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = f(x)
            loss.backward()
            optimizer.step()
            losses.append(loss)
        return losses, [p.detach().clone() for p in net.parameters()]

    return steps, (rand(3, 4),)


@program
def mode_of_module_changed(t):
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    net[1].running_mean += 1
    f = t.compiled(lambda x: t.F.jacrev(lambda x: net(x).sum(0))(x))

    def calls(x):
        return f(x), f(x * 2) if net.eval() else None, f(x) if net.train() else None

    return calls, (rand(6, 4),)


@program
def two_functions_share_parameters(t):
    net = network()
    f = t.compiled(lambda x: t.F.vmap(t.F.grad(lambda x: net(x).sum()))(x))
    g = t.compiled(lambda x: t.F.vmap(t.F.jacfwd(net))(x))

    def calls(x):
        for p in net.parameters():
            p.grad = None
        (f(x).square().sum() + g(x).sin().sum()).backward()
        with torch.no_grad():
            changed = [p.add_(0.1) for p in net.parameters()]
        out = f(x).detach(), g(x).detach()
        with torch.no_grad():
            for p in changed:
                p.sub_(0.1)
        return out, [p.grad for p in net.parameters()]

    return calls, (rand(3, 4),)


@program
def one_calls_the_other(t):
    gradient = t.compiled(t.F.grad(_LOSS))
    product = t.compiled(lambda x, v: t.F.jvp(gradient, (x,), (v,))[1])
    return lambda x, v: (gradient(x), product(x, v), t.F.vmap(product)(x[None], v[None])), (
        rand(4),
        rand(4),
    )


@program
def many_functions_of_one_code(t):
    def scaled(factor):
        return t.compiled(lambda x: t.F.grad(lambda x: (factor * x.sin()).sum())(x))

    functions = [scaled(n) for n in range(4)]
    return lambda x: [f(x) for f in functions], (rand(4),)


@program
def double_backward(t):
    f = lambda x: t.F.vmap(lambda x: x.sin() * x.sum())(x)

    def calls(x):
        x = x.detach().requires_grad_()
        (first,) = torch.autograd.grad(f(x).square().sum(), x, create_graph=True)
        return t.compiled(lambda g: t.F.vmap(torch.cos)(g))(first).detach(), f(x).detach()

    return calls, (rand(3, 4),)


@program
def under_autocast(t):
    f = t.compiled(lambda x: t.F.vmap(lambda x: x @ x)(x))

    def calls(x):
        x = (x * 4).round().float()
        with torch.autocast("cpu", torch.bfloat16):
            low = f(x)
        return low.dtype == torch.bfloat16, low.double(), f(x).double()

    return calls, (rand(2, 3, 3),)


@program
def new_seeds(t):
    f = t.compiled(lambda x: t.F.vmap(lambda x: x + torch.rand(3), randomness="different")(x))

    def calls(x):
        draws = [f(x) for _ in range(3)]
        return [bool((a == b).any()) for a, b in zip(draws, draws[1:])]

    return calls, (torch.zeros(2, 3),)


@program
def methods_of_a_module(t):
    class Flow(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            return self.net(x)

        @torch.no_grad()
        def log_determinants(self, x):
            jacobians = t.F.vmap(t.F.jacrev(lambda x: self(x)[:2]))(x)
            return torch.linalg.slogdet(jacobians @ jacobians.mT)[1]

    flow = Flow()
    f = t.compiled(flow.log_determinants)
    return lambda x: [f(x), f(x[:2])], (rand(3, 4),)
