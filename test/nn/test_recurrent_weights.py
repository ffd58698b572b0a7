"""A recurrent layer lists its weights once more: after functional_call they are its own again."""

import pytest
import torch
from torch import nn

from functorch_ext import debug, functional_call, grad, vmap
from test.oracle import rand


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("inside", [False, True])
def test_listed_weights(kind, inside):
    layer = kind(3, 4).double()
    module = nn.Sequential(layer) if inside else layer
    x = rand(2, 5, 2, 3)
    stacked = {k: torch.stack([p.detach(), 2 * p.detach()]) for k, p in module.named_parameters()}
    call = lambda parameters, x: functional_call(module, parameters, (x,))[0]
    before = layer._flat_weights

    vmap(call)(stacked, x)
    vmap(grad(lambda *args: call(*args).sum()))(stacked, x)
    with pytest.raises(RuntimeError, match="input.size"):
        vmap(call)(stacked, x[..., :2])

    assert layer._flat_weights is before
    assert all(mine is p for mine, p in zip(before, layer.parameters(), strict=True))
    assert not debug.leaks().tensors
    expected = torch.func.functional_call(layer, dict(layer.named_parameters()), (x[0],))[0]
    torch.testing.assert_close(layer(x[0])[0], expected)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_the_same_weights_in_several_calls(kind):
    layer, x = kind(3, 4).double(), rand(5, 2, 3)
    weights = {key: 2 * p.detach() for key, p in layer.named_parameters()}
    expected = torch.func.functional_call(layer, weights, (x,))[0]
    for _ in range(2):
        torch.testing.assert_close(functional_call(layer, weights, (x,))[0], expected)
    assert not torch.allclose(layer(x)[0], expected)
