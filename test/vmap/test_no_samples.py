"""A batch of no samples: results have the shapes that a sample's would have."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from functorch_ext import functional_call, grad, jvp, vmap
from test.oracle import rand

RESHAPED = {
    "view": lambda x: x.view(-1, 16),
    "view of all": lambda x: x.view(-1),
    "reshape": lambda x: x.reshape(-1, 8),
    "reshape of a transposed one": lambda x: x.mT.reshape(-1, 5),
    "flatten": lambda x: x.flatten(),
    "unflatten": lambda x: x.unflatten(2, (-1, 4)),
    "view_copy": lambda x: torch.view_copy(x, [-1, 8]),
    "_unsafe_view": lambda x: torch.ops.aten._unsafe_view(x, [-1, 8]),
    "expand": lambda x: x.unsqueeze(0).expand(3, -1, -1, -1),
    "chunk": lambda x: x.chunk(4, -1)[0],
    "repeat_interleave": lambda x: x.repeat_interleave(2),
}


@pytest.mark.parametrize("function", RESHAPED.values(), ids=RESHAPED)
def test_reshaped(function):
    expected = (0, *function(rand(5, 2, 16)).shape)
    nothing = rand(0, 5, 2, 16)
    assert vmap(function)(nothing).shape == expected
    assert vmap(vmap(function))(nothing[None]).shape == (1, *expected)
    assert vmap(vmap(function))(nothing[:, None]).shape == (0, 1, *expected[1:])
    assert vmap(grad(lambda x: function(x).sum()))(nothing).shape == nothing.shape
    push = lambda x: jvp(function, (x,), (x,))[1]
    assert vmap(push)(nothing).shape == expected


LOSSES = {
    "cross_entropy": lambda x, y: F.cross_entropy(x, y),
    "nll_loss, per sample": lambda x, y: F.nll_loss(x, y, reduction="none"),
    "multi_margin_loss": lambda x, y: F.multi_margin_loss(x, y, reduction="none"),
    "multilabel_margin_loss": lambda x, y: F.multilabel_margin_loss(
        x, y.unsqueeze(1).expand(4, 3), reduction="none"
    ),
    "mse_loss": lambda x, y: F.mse_loss(x[:, 0], y.double()),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses(loss):
    x, y = rand(4, 3), torch.zeros(4, dtype=torch.long)
    nothing = (rand(0, 4, 3), torch.zeros(0, 4, dtype=torch.long))
    assert vmap(loss)(*nothing).shape == (0, *loss(x, y).shape)
    assert vmap(grad(lambda x, y: loss(x, y).sum()))(*nothing).shape == (0, 4, 3)


def test_draws():
    draw = lambda x: torch.multinomial(x, 2)
    assert vmap(draw, randomness="different")(rand(0, 4, 3).abs()).shape == (0, 4, 2)
    pool = lambda x: F.fractional_max_pool2d(x, 2, output_size=2)
    images = rand(0, 2, 3, 6, 6)
    assert vmap(pool, randomness="different")(images).shape == (0, 2, 3, 2, 2)


MODULES = {
    "Linear": (nn.Linear(4, 3), (5, 4)),
    "Conv2d": (nn.Conv2d(2, 4, 3, groups=2), (2, 5, 5)),
    "ConvTranspose1d": (nn.ConvTranspose1d(2, 3, 3), (2, 5)),
    "LayerNorm": (nn.LayerNorm(4), (5, 4)),
    "GroupNorm": (nn.GroupNorm(2, 4), (3, 4, 5)),
    "BatchNorm1d": (nn.BatchNorm1d(4).eval(), (5, 4)),
    "RNN": (nn.RNN(3, 4), (5, 2, 3)),
    "GRU": (nn.GRU(3, 4, bidirectional=True), (5, 2, 3)),
    "LSTM": (nn.LSTM(3, 4, num_layers=2), (5, 2, 3)),
    "MultiheadAttention": (nn.TransformerEncoderLayer(4, 2, 8, dropout=0), (5, 2, 4)),
    "Embedding": (nn.Embedding(7, 3), None),
}


@pytest.mark.parametrize("name", MODULES)
def test_per_sample_gradients(name):
    module, shape = MODULES[name]
    module = module.double()
    x = torch.zeros(0, 5, dtype=torch.long) if shape is None else rand(0, *shape)
    parameters = {key: p.detach() for key, p in module.named_parameters()}

    def loss(parameters, x):
        output = functional_call(module, parameters, (x,))
        return F.softplus(output[0] if isinstance(output, tuple) else output).sum()

    gradients = vmap(grad(loss), (None, 0))(parameters, x)
    assert {key: g.shape[1:] for key, g in gradients.items()} == {
        key: p.shape for key, p in parameters.items()
    }
    assert all(len(g) == 0 for g in gradients.values())
    if shape is not None:
        assert vmap(grad(loss, 1), (None, 0))(parameters, x).shape == x.shape
