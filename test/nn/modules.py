"""The modules that the tests of functional_call and friends share, and what they do with them."""

import copy

import pytest
import torch
from torch import nn


class Scale(nn.Module):
    """Has every kind of state: parameter, two buffers (one not saved), a plain tensor."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(3))
        self.register_buffer("count", torch.zeros(3))
        self.register_buffer("last", torch.zeros(3), persistent=False)
        self.offset = torch.ones(3)

    def forward(self, x, *, power=1):
        self.count.add_(1)
        self.last = self.last + 10
        return (x * self.scale + self.offset) ** power + self.count + self.last


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3, bias=False)
        self.weight = self.linear.weight

    def forward(self, x):
        return self.linear(x) + x @ self.weight


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT

    def right_inverse(self, x):
        return x.triu()


class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        raise ArithmeticError("from the module")


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Sequential(nn.Linear(4 * 4, 5), nn.LayerNorm(5)),
    )


def tensors_of(module):
    """All tensors by name, as (identity, version, value) to see any change at all."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: (id(t), t._version, t.detach().clone().tolist()) for name, t in named}


def random_state(module):
    named = [*module.named_parameters(), *module.named_buffers()]
    return {n: torch.rand_like(t) if t.is_floating_point() else t.clone() for n, t in named}


def loaded(module, state):
    """A copy of ``module`` that holds ``state``: what functional_call must agree with."""
    module = copy.deepcopy(module)
    module.load_state_dict(state, strict=False)
    return module


def message(kind, function):
    with pytest.raises(kind) as caught:
        function()
    return str(caught.value)
