"""Modules: closures over parameters, ``functional_call``, ensembles, buffers."""

import torch
from torch import nn

from test.compile.corpus import program, rand


def network():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()


class Transforming(nn.Module):
    """A module whose forward uses a transform."""

    def __init__(self, F):
        super().__init__()
        self.net, self.F = network(), F

    def forward(self, x):
        return self.F.vmap(self.F.grad(lambda x: self.net(x).sum()))(x)


@program
def in_forward(t):
    return Transforming(t.F), (rand(3, 4),)


@program
def closure(t):
    net = network()
    return lambda x: t.F.vmap(lambda x: net(x).sum())(x), (rand(3, 4),)


@program
def jacobian_of_module(t):
    net = network()
    return lambda x: t.F.vmap(t.F.jacrev(net))(x), (rand(3, 4),)


@program
def functional_call(t):
    net = network()
    parameters = {k: v.detach() * 2 for k, v in net.named_parameters()}
    return lambda p, x: t.F.functional_call(net, p, (x,)), (parameters, rand(3, 4))


@program
def grad_of_functional_call(t):
    net = network()
    loss = lambda p, x: t.F.functional_call(net, p, (x,)).square().sum()
    return lambda p, x: t.F.grad(loss)(p, x), (dict(net.named_parameters()), rand(3, 4))


@program
def per_sample_gradients(t):
    net = network()
    loss = lambda p, x, y: nn.functional.mse_loss(t.F.functional_call(net, p, (x,)), y)
    f = lambda p, x, y: t.F.vmap(t.F.grad(loss), (None, 0, 0))(p, x, y)
    return f, ({k: v.detach() for k, v in net.named_parameters()}, rand(3, 4), rand(3, 2))


@program
def per_sample_gradients_made_before(t):
    net = network()
    loss = lambda p, x, y: nn.functional.mse_loss(t.F.functional_call(net, p, (x,)), y)
    f = t.F.vmap(t.F.grad(loss), (None, 0, 0))
    return f, ({k: v.detach() for k, v in net.named_parameters()}, rand(3, 4), rand(3, 2))


@program
def per_sample_gradients_of_convolution(t):
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3)
    )
    net = net.double()
    loss = lambda p, x, y: nn.functional.cross_entropy(
        t.F.functional_call(net, p, (x[None],)), y[None]
    )
    f = lambda p, x, y: t.F.vmap(t.F.grad(loss), (None, 0, 0))(p, x, y)
    parameters = {k: v.detach() for k, v in net.named_parameters()}
    return f, (parameters, rand(3, 1, 8, 8), torch.tensor([0, 2, 1]))


@program
def per_sample_gradients_of_transformer(t):
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
    loss = lambda p, x: t.F.functional_call(layer, p, (x[None],)).square().mean()
    f = lambda p, x: t.F.vmap(t.F.grad(loss), (None, 0))(p, x)
    return f, ({k: v.detach() for k, v in layer.named_parameters()}, rand(3, 5, 8))


@program
def ensemble(t):
    nets = [network() for _ in range(3)]
    parameters, buffers = t.F.stack_module_state(nets)
    call = lambda p, b, x: t.F.functional_call(nets[0], (p, b), (x,))
    f = lambda p, x: t.F.vmap(call, (0, None, None))(p, buffers, x)
    return f, ({k: v.detach() for k, v in parameters.items()}, rand(6, 4))


@program
def ensemble_with_own_data(t):
    nets = [network() for _ in range(3)]
    parameters, buffers = t.F.stack_module_state(nets)
    call = lambda p, x: t.F.functional_call(nets[0], p, (x,))
    return lambda p, x: t.F.vmap(call)(p, x), (
        {k: v.detach() for k, v in parameters.items()},
        rand(3, 6, 4),
    )


@program
def stacked_inside(t):
    nets = [network() for _ in range(3)]

    def f(x):
        parameters, buffers = t.F.stack_module_state(nets)
        call = lambda p, b, x: t.F.functional_call(nets[0], (p, b), (x,))
        return t.F.vmap(call, (0, 0, None))(parameters, buffers, x)

    return f, (rand(6, 4),)


@program
def batch_norm_in_evaluation(t):
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double().eval()
    loss = lambda p, x: t.F.functional_call(net, p, (x[None],)).square().sum()
    f = lambda p, x: t.F.vmap(t.F.grad(loss), (None, 0))(p, x)
    return f, ({k: v.detach() for k, v in net.named_parameters()}, rand(6, 4))


@program
def batch_norm_statistics_updated(t):
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    buffers = {k: v.clone() for k, v in net.named_buffers()}

    def f(p, x):
        loss = lambda p, b, x: t.F.functional_call(net, (p, b), (x,)).pow(3).sum()
        return t.F.grad(loss)(p, buffers, x), dict(buffers)

    return f, ({k: v.detach() for k, v in net.named_parameters()}, rand(6, 4))


@program
def batch_norm_without_statistics(t):
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    t.F.replace_all_batch_norm_modules_(net)
    f = lambda x: t.F.vmap(lambda x: t.F.grad(lambda x: net(x).pow(3).sum())(x))(x)
    return f, (rand(2, 6, 4),)


@program
def dropout_in_training(t):
    net = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5)).double()
    return lambda x: t.F.vmap(net, randomness="different")(x), (rand(6, 4),)


@program
def tied_weights(t):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4).double()
            self.b = nn.Linear(4, 4).double()
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x).tanh())

    net = Tied()
    loss = lambda p, x: t.F.functional_call(net, p, (x,)).square().sum()
    return lambda p, x: t.F.grad(loss)(p, x), (
        {"a.weight": rand(4, 4), "a.bias": rand(4), "b.bias": rand(4)},
        rand(3, 4),
    )


@program
def gru_cell(t):
    cell = nn.GRUCell(4, 3).double()
    return lambda x, h: t.F.vmap(t.F.jacrev(cell, argnums=1))(x, h), (rand(5, 4), rand(5, 3))


@program
def embedding(t):
    table = nn.Embedding(7, 3).double()
    loss = lambda p, i: t.F.functional_call(table, p, (i,)).square().sum()
    f = lambda p, i: t.F.vmap(t.F.grad(loss), (None, 0))(p, i)
    return f, ({"weight": rand(7, 3)}, torch.tensor([[0, 1], [2, 2], [6, 0]]))


@program
def module_backward(t):
    net = network()

    def f(x):
        for p in net.parameters():
            p.grad = None
        t.F.vmap(t.F.jacrev(net))(x).square().sum().backward()
        return [p.grad for p in net.parameters()]

    return f, (rand(3, 4),)


@program
def mapped_over_parameter(t):
    weight = nn.Parameter(rand(3, 4))
    return lambda x: t.F.vmap(lambda w, x: (w * x).sum())(weight, x), (rand(3, 4),)


@program
def attention_layer(t):
    layer = nn.MultiheadAttention(8, 2, batch_first=True).double()
    f = lambda x: t.F.vmap(lambda x: layer(x[None], x[None], x[None])[0][0])(x)
    return f, (rand(3, 5, 8),)
