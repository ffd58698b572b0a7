"""Programs that differentiate and map, small: what jit is for."""

import torch
from torch import nn
from torch.nn import functional

from functorch_ext import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vmap


def rand(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def mlp(*sizes):
    layers = []
    for i, (n, m) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layers += [nn.Linear(n, m), nn.Tanh()] if i < len(sizes) - 2 else [nn.Linear(n, m)]
    return nn.Sequential(*layers).double()


def hessian_of_mlp():
    net = mlp(5, 6, 1)
    return hessian(lambda x: net(x).sum()), (rand(5),)


def pinn():
    net = mlp(2, 8, 1)
    laplacian = lambda x: torch.trace(hessian(lambda y: net(y).squeeze())(x))
    return vmap(laplacian), (rand(7, 2),)


def per_sample_gradients():
    net = mlp(4, 6, 1)
    params = {name: value.detach() for name, value in net.named_parameters()}

    def loss(params, x, y):
        return (functional_call(net, params, (x,)) - y).square().sum()

    return vmap(grad(loss), (None, 0, 0)), (params, rand(9, 4), rand(9, 1))


def per_sample_gradients_of_convolutions():
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4)
    ).double()
    params = {name: value.detach() for name, value in net.named_parameters()}

    def loss(params, x, label):
        logits = functional_call(net, params, (x.unsqueeze(0),))
        return functional.cross_entropy(logits, label.unsqueeze(0))

    labels = torch.tensor([0, 3, 1])
    return vmap(grad(loss), (None, 0, 0)), (params, rand(3, 1, 8, 8), labels)


def chain():
    def chained(x):
        for _ in range(12):
            x = torch.sin(x) * x
        return x.sum()

    return grad(chained), (rand(3, 4),)


def lennard_jones():
    first, second = torch.triu_indices(4, 4, 1)

    def energy(positions):
        distances = (positions[first] - positions[second]).square().sum(-1)
        return (distances**-6 - distances**-3).sum()

    return hessian(energy), (rand(4, 3) * 2,)


def ensemble():
    nets = [mlp(3, 5, 2) for _ in range(4)]
    params, buffers = stack_module_state(nets)
    params = {name: value.detach() for name, value in params.items()}
    call = lambda p, b, x: functional_call(nets[0], (p, b), (x,))
    return vmap(call, (0, 0, None)), (params, buffers, rand(6, 3))


def maml():
    def net(params, x):
        for weight, bias in params[:-1]:
            x = torch.tanh(x @ weight + bias)
        return x @ params[-1][0] + params[-1][1]

    def loss(params, x, y):
        return (net(params, x) - y).square().mean()

    def outer(params, x, y):
        def of_task(x, y):
            gradients = grad(loss)(params, x, y)
            moved = [tuple(p - 0.1 * g for p, g in zip(*pair)) for pair in zip(params, gradients)]
            return loss(moved, x, y)

        return vmap(of_task)(x, y).mean()

    params = [(rand(1, 6), rand(6)), (rand(6, 1), rand(1))]
    return grad(outer), (params, rand(3, 5, 1), rand(3, 5, 1))


def jacobian_of_mlp():
    return jacrev(mlp(4, 6, 5)), (rand(4),)


def hessian_vector_product():
    net = mlp(4, 6, 1)
    gradient = grad(lambda x: net(x).sum())
    return lambda x, v: jvp(gradient, (x,), (v,))[1], (rand(4), rand(4))


def linear_algebra():
    def program(x, b):
        matrix = x @ x.mT + torch.eye(4, dtype=x.dtype)
        return torch.logdet(matrix) + torch.linalg.solve(matrix, b).sum()

    return vmap(grad(program, (0, 1))), (rand(3, 4, 4), rand(3, 4))


def transformer_layer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
    params = {name: value.detach() for name, value in layer.named_parameters()}
    loss = lambda p, x: functional_call(layer, p, (x.unsqueeze(0),)).square().sum()
    return vmap(grad(loss), (None, 0)), (params, rand(3, 5, 8))


ALL = {
    f.__name__: f
    for f in (
        hessian_of_mlp,
        pinn,
        per_sample_gradients,
        per_sample_gradients_of_convolutions,
        chain,
        lennard_jones,
        ensemble,
        maml,
        jacobian_of_mlp,
        hessian_vector_product,
        linear_algebra,
        transformer_layer,
    )
}
