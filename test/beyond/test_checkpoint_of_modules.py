"""Checkpoints inside functional_call: computed again with the tensors that were given."""

import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as plain_checkpoint

from functorch_ext import checkpoint, functional_call, grad, hessian, per_sample_grads, vjp, vmap
from test.oracle import assert_close, rand

WAYS = {
    "nothing": lambda f: checkpoint(f),
    "dots": lambda f: checkpoint(f, policy="dots"),
    "all": lambda f: checkpoint(f, policy=lambda operator: True),
    "plain": lambda f: lambda x: plain_checkpoint(f, x, use_reentrant=False),
    "twice": lambda f: checkpoint(lambda x: checkpoint(f)(x)),
}


class Block(nn.Module):
    def __init__(self, again=lambda f: f):
        super().__init__()
        self.linear = nn.Linear(4, 4).double()
        self.register_buffer("scale", torch.tensor(2.0).double())
        self.again = again

    def forward(self, x):
        return self.again(lambda y: (self.linear(y) * self.scale).sin())(x).square()


def state_of(model):
    torch.manual_seed(1)
    return {name: torch.randn_like(each) for name, each in model.state_dict().items()}


def expected_gradients(call, state):
    leaves = {name: each.clone().requires_grad_() for name, each in state.items()}
    return dict(zip(leaves, torch.autograd.grad(call(leaves), list(leaves.values())), strict=True))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("nested", [False, True])
def test_gradients(way, nested):
    wrap = nn.Sequential if nested else lambda block: block
    model, reference = wrap(Block(WAYS[way])), wrap(Block())
    state, x = state_of(model), rand(3, 4)
    loss = lambda model, x: lambda state: functional_call(model, state, (x,)).sum()
    expected = [expected_gradients(loss(reference, each), state) for each in x]

    assert_close(grad(loss(model, x[0]))(state), expected[0])
    assert_close(vjp(loss(model, x[0]), state)[1](rand(3)[0].new_ones(()))[0], expected[0])
    assert_close(expected_gradients(loss(model, x[0]), state), expected[0])
    mapped = vmap(lambda x: grad(loss(model, x))(state))(x)
    assert_close(mapped, {n: torch.stack([e[n] for e in expected]) for n in state})
    name = next(iter(state))
    curved = lambda model: hessian(lambda w: loss(model, x[0])({**state, name: w}))(state[name])
    assert_close(curved(model), curved(reference))


@pytest.mark.parametrize("way", WAYS)
def test_per_sample_grads(way):
    model, reference = Block(WAYS[way]), Block()
    reference.load_state_dict(model.state_dict())
    x = rand(3, 4)
    found = per_sample_grads(model, lambda y, t: (y - t).square().sum())(x, x)
    for index, each in enumerate(x):
        loss = (reference(each) - each).square().sum()
        expected = torch.autograd.grad(loss, list(reference.parameters()))
        assert_close([g[index] for g in found.values()], list(expected))


def test_own_tensors_come_back():
    model = Block(WAYS["dots"])
    before = {name: each for name, each in model.named_parameters()}
    state, x = state_of(model), rand(4)
    grad(lambda state: functional_call(model, state, (x,)).sum())(state)
    assert all(each is before[name] for name, each in model.named_parameters())


def test_inner_of_two_calls():
    """Each checkpoint has the tensors of its own call, and what it left to the outer one."""
    model, reference = nn.Sequential(Block(WAYS["nothing"])), nn.Sequential(Block())
    state, x = state_of(model), rand(4)

    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            once = functional_call(self.inner, {"0.linear.bias": x.cos()}, (x,))
            return once.sum() + self.inner(x).sum()

    named = {f"inner.{name}": each for name, each in state.items()}
    loss = lambda inner: lambda state: functional_call(Outer(inner), state, (x,))
    expected = expected_gradients(loss(reference), named)
    assert_close(grad(loss(model))(named), expected)


def test_backward_pass_inside_the_call():
    class Inside(Block):
        def forward(self, x):
            x = x.detach().requires_grad_()
            return torch.autograd.grad(super().forward(x).sum(), x)[0]

    model, reference = Inside(WAYS["nothing"]), Inside()
    state, x = state_of(model), rand(4)
    assert_close(functional_call(model, state, (x,)), functional_call(reference, state, (x,)))


def test_backward_pass_in_another_thread():
    model, reference = Block(WAYS["nothing"]), Block()
    state, x = state_of(model), rand(4)
    leaves = {name: each.clone().requires_grad_() for name, each in state.items()}
    loss = functional_call(model, leaves, (x,)).sum()
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    call = lambda state: functional_call(reference, state, (x,)).sum()
    assert_close({n: each.grad for n, each in leaves.items()}, expected_gradients(call, state))


def test_reentrant():
    model = Block(lambda f: lambda x: plain_checkpoint(f, x, use_reentrant=True))
    state, x = state_of(model), rand(4)
    leaves = {name: each.clone().requires_grad_() for name, each in state.items()}
    functional_call(model, leaves, (x.clone().requires_grad_(),)).sum().backward()
    call = lambda state: functional_call(Block(), state, (x,)).sum()
    assert_close({n: each.grad for n, each in leaves.items()}, expected_gradients(call, state))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent(kind):
    class Recurrent(nn.Module):
        def __init__(self, again):
            super().__init__()
            self.layer, self.again = kind(4, 3).double(), again

        def forward(self, x):
            return self.again(lambda x: self.layer(x)[0].sin())(x)

    model, reference = Recurrent(checkpoint), Recurrent(lambda f: f)
    state, x = state_of(model), rand(5, 4)
    own = list(model.layer._flat_weights)
    loss = lambda model: lambda state: functional_call(model, state, (x,)).square().sum()
    assert_close(grad(loss(model))(state), expected_gradients(loss(reference), state))
    assert all(a is b for a, b in zip(own, model.layer._flat_weights, strict=True))


def test_parametrized():
    class Normed(nn.Module):
        def __init__(self, again):
            super().__init__()
            self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3).double())
            self.again = again

        def forward(self, x):
            return self.again(lambda x: self.layer(x).sin())(x)

    model, reference = Normed(checkpoint), Normed(lambda f: f)
    reference.load_state_dict(model.state_dict())
    state, x = {"layer.weight": rand(3, 4)}, rand(4)
    loss = lambda model: lambda state: functional_call(model, state, (x,)).square().sum()
    assert_close(grad(loss(model))(state), expected_gradients(loss(reference), state))
