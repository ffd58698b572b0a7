"""Whole steps: private training, meta-learning, physics-informed networks, optimizers."""

import torch
from torch import nn

from test.compile.corpus import program, rand
from test.compile.programs_modules import network


@program
def private_step(t):
    net = network()
    loss = lambda p, x, y: nn.functional.mse_loss(t.F.functional_call(net, p, (x,)), y)

    def step(p, x, y):
        gradients = t.F.vmap(t.F.grad(loss), (None, 0, 0))(p, x, y)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
        clip = (1.0 / (norms + 1e-6)).clamp(max=1.0)
        clipped = {k: torch.einsum("b,b...->...", clip, g) / len(x) for k, g in gradients.items()}
        return {k: p[k] - 0.1 * clipped[k] for k in p}

    return step, ({k: v.detach() for k, v in net.named_parameters()}, rand(3, 4), rand(3, 2))


@program
def step_with_optimizer(t):
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    loss = lambda p, x, y: nn.functional.mse_loss(t.F.functional_call(net, p, (x,)), y)

    def step(x, y):
        parameters = {k: v.detach() for k, v in net.named_parameters()}
        gradients = t.F.vmap(t.F.grad(loss), (None, 0, 0))(parameters, x, y)
        for name, parameter in net.named_parameters():
            parameter.grad = gradients[name].mean(0)
        optimizer.step()
        return [p.detach() for p in net.parameters()]

    return step, (rand(3, 4), rand(3, 2))


@program
def private_step_with_optimizer(t):
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    loss = lambda p, x, y: nn.functional.mse_loss(t.F.functional_call(net, p, (x,)), y)

    def clipped(p, x, y):
        gradients = t.F.vmap(t.F.grad(loss), (None, 0, 0))(p, x, y)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
        factors = (0.1 / (norms + 1e-6)).clamp(max=1.0)
        return {k: torch.einsum("b,b...->...", factors, g) for k, g in gradients.items()}

    def step(x, y):
        gradients = clipped({k: v.detach() for k, v in net.named_parameters()}, x, y)
        for name, parameter in net.named_parameters():
            noise = 0.01 * torch.randn_like(parameter)
            parameter.grad = (gradients[name] + noise) / len(x)
        optimizer.step()
        optimizer.zero_grad()
        return [p.detach().clone() for p in net.parameters()]

    return step, (rand(3, 4), rand(3, 2))


@program
def step_by_hand_in_place(t):
    net = network()
    loss = lambda p, x, y: nn.functional.mse_loss(t.F.functional_call(net, p, (x,)), y)

    def step(p, x, y):
        gradients, value = t.F.grad_and_value(loss)(p, x, y)
        for name in p:
            p[name].sub_(0.1 * gradients[name])
        return value

    return step, (
        {k: v.detach().clone() for k, v in net.named_parameters()},
        rand(3, 4),
        rand(3, 2),
    )


@program
def meta_learning(t):
    net = network()
    loss = lambda p, x, y: nn.functional.mse_loss(t.F.functional_call(net, p, (x,)), y)

    def adapted(p, x, y, xq, yq):
        gradients = t.F.grad(loss)(p, x, y)
        return loss({k: p[k] - 0.1 * gradients[k] for k in p}, xq, yq)

    def meta(p, x, y, xq, yq):
        return t.F.vmap(adapted, (None, 0, 0, 0, 0))(p, x, y, xq, yq).mean()

    f = lambda p, *tasks: t.F.grad_and_value(meta)(p, *tasks)
    data = (rand(3, 6, 4), rand(3, 6, 2), rand(3, 6, 4), rand(3, 6, 2))
    return f, ({k: v.detach() for k, v in net.named_parameters()}, *data)


@program
def meta_learning_by_backward(t):
    net = network()
    loss = lambda p, x, y: nn.functional.mse_loss(t.F.functional_call(net, p, (x,)), y)

    def adapted(p, x, y):
        gradients = t.F.grad(loss)(p, x, y)
        return loss({k: p[k] - 0.1 * gradients[k] for k in p}, x, y)

    def meta(p, x, y):
        total = t.F.vmap(adapted, (None, 0, 0))(p, x, y).mean()
        total.backward()
        return total.detach()

    parameters = {k: v.detach().clone().requires_grad_() for k, v in net.named_parameters()}
    return meta, (parameters, rand(3, 6, 4), rand(3, 6, 2))


@program
def physics_informed(t):
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()

    def residual(p, x):
        u = lambda x: t.F.functional_call(net, p, (x,)).squeeze()
        return t.F.hessian(u)(x).trace() + t.F.grad(u)(x)[0] - u(x)

    def loss(p, x):
        return t.F.vmap(residual, (None, 0))(p, x).square().mean()

    return lambda p, x: t.F.grad_and_value(loss)(p, x), (
        {k: v.detach() for k, v in net.named_parameters()},
        rand(5, 2),
    )


@program
def physics_informed_by_backward(t):
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()

    def f(x):
        u = lambda x: net(x).squeeze()
        for p in net.parameters():
            p.grad = None
        t.F.vmap(lambda x: t.F.hessian(u)(x).trace())(x).square().mean().backward()
        return [p.grad for p in net.parameters()]

    return f, (rand(5, 2),)


@program
def newton_step(t):
    f = lambda x: (x**4).sum() + (x[0] * x[1] - 1) ** 2
    step = lambda x: x - torch.linalg.solve(t.F.hessian(f)(x), t.F.grad(f)(x))
    return step, (rand(3) + 2,)


@program
def gauss_newton_products(t):
    net = network()

    def product(p, x, v):
        out = lambda p: t.F.functional_call(net, p, (x,))
        _, pushed = t.F.jvp(out, (p,), (v,))
        _, pullback = t.F.vjp(out, p)
        return pullback(pushed)[0]

    parameters = {k: v.detach() for k, v in net.named_parameters()}
    return product, (parameters, rand(3, 4), {k: rand(*v.shape) for k, v in parameters.items()})


@program
def neural_tangent_kernel(t):
    net = network()

    def kernel(p, x, y):
        out = lambda p, x: t.F.functional_call(net, p, (x[None],)).squeeze(0)
        jx = t.F.vmap(t.F.jacrev(out), (None, 0))(p, x)
        jy = t.F.vmap(t.F.jacrev(out), (None, 0))(p, y)
        return sum(torch.einsum("naf,mbf->nmab", jx[k].flatten(2), jy[k].flatten(2)) for k in p)

    return kernel, ({k: v.detach() for k, v in net.named_parameters()}, rand(3, 4), rand(2, 4))


@program
def energy_and_forces(t):
    def energy(r):
        d = r[:, None] - r[None] + torch.eye(len(r), dtype=r.dtype)[..., None]
        s = (d**2).sum(-1)
        return (1 / s**6 - 1 / s**3).triu(1).sum()

    f = lambda r: t.F.vmap(t.F.grad_and_value(energy))(r)
    return f, (rand(2, 4, 3) * 3,)


@program
def lennard_jones_hessian(t):
    def energy(r):
        i, j = torch.triu_indices(len(r), len(r), 1)
        s = ((r[i] - r[j]) ** 2).sum(-1)
        return (1 / s**6 - 1 / s**3).sum()

    return lambda r: t.F.hessian(energy)(r), (rand(4, 3) * 3,)


@program
def langevin_step(t):
    energy = lambda x: (x**4).sum()
    step = lambda x: x - 0.1 * t.F.grad(energy)(x) + 0.01 * torch.randn_like(x)
    return lambda x: t.F.vmap(step, randomness="different")(x), (rand(6, 3),)


@program
def implicit_layer(t):
    def f(x, w):
        z = torch.zeros_like(x)
        for _ in range(4):
            z = torch.tanh(z @ w + x)
        g = lambda z: torch.tanh(z @ w + x) - z
        return torch.linalg.solve(t.F.jacrev(g)(z), z)

    return f, (rand(3), rand(3, 3) * 0.1)
