"""Full backward hooks of modules see samples, whichever plane differentiates."""

import pytest
import torch
from torch import nn

from functorch_ext import functional_call, grad, jacrev, vmap
from test.oracle import assert_close, loop

X = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]], dtype=torch.float64)


class Two(nn.Module):
    """Several inputs and outputs, one of them not a tensor, one without a gradient."""

    def forward(self, x, scale, y):
        return x * y * scale, y.sum(), x > 0


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def hooked(seen=None):
    module = network()

    def change(_, by_inputs, by_outputs):
        if seen is not None:
            seen.append((by_inputs[0].shape, by_outputs[0].shape))
        return (by_inputs[0] * by_outputs[0].sin(),)

    module[1].register_full_backward_hook(change)
    module[2].register_full_backward_pre_hook(lambda _, by_outputs: (by_outputs[0] * 3,))
    return module


def looped(func, total):
    """The gradient by a batch of what loops over its samples."""

    def gradient(xs):
        xs = xs.detach().clone().requires_grad_()
        return torch.autograd.grad(total(loop(func, 0, 0)(xs)), xs)[0]

    return gradient


def test_gradient_of_vmap():
    seen = []
    total = lambda y: y.sin().sum()
    actual = grad(lambda x: total(vmap(hooked(seen))(x)))(X)
    assert_close(actual, looped(hooked(), total)(X))
    assert seen == [((4,), (4,))]


def test_gradient_of_two_vmaps():
    xs = torch.stack([X, X.cos(), -X])
    total = lambda y: y.sin().sum()
    actual = grad(lambda x: total(vmap(vmap(hooked()))(x)))(xs)
    assert_close(actual, looped(loop(hooked(), 0, 0), total)(xs))


def test_gradient_of_vmap_inside_vmap():
    xs = torch.stack([X, X.cos(), -X])
    total = lambda y: y.sin().sum()
    module = hooked()
    actual = vmap(grad(lambda x: total(vmap(module)(x))))(xs)
    assert_close(actual, torch.stack([looped(hooked(), total)(x) for x in xs]))


def test_rows_of_a_jacobian():
    module = hooked()
    actual = jacrev(lambda x: vmap(module)(x).sin().sum(0))(X)
    rows = [looped(module, lambda y, i=i: y.sin().sum(0)[i])(X) for i in range(3)]
    assert_close(actual, torch.stack(rows))


def test_backward_by_parameters():
    module, expected = hooked(), hooked()
    vmap(module)(X).sin().sum().backward()
    loop(expected, 0, 0)(X).sin().sum().backward()
    for got, want in zip(module.parameters(), expected.parameters(), strict=True):
        assert_close(got.grad, want.grad)


def test_an_ensemble():
    """The inputs are the same for all, and their gradients differ all the same."""
    weights = [{k: p.detach() * s for k, p in network().named_parameters()} for s in (1.0, -0.5)]
    stacked = {name: torch.stack([each[name] for each in weights]) for name in weights[0]}
    module = hooked()

    def total(x, stacked):
        return vmap(lambda p: functional_call(module, p, (x,)))(stacked).sin().sum()

    def expected(x):
        x = x.clone().requires_grad_()
        result = sum(functional_call(module, p, (x,)).sin().sum() for p in weights)
        return torch.autograd.grad(result, x)[0]

    assert_close(grad(total)(X[0], stacked), expected(X[0]))


def test_several_inputs_and_outputs():
    def make():
        module = Two()
        module.register_full_backward_hook(
            lambda _, by_inputs, by_outputs: (by_inputs[0] * by_outputs[1], None, by_inputs[2] * 2)
        )
        return lambda x: sum(each.sum() for each in module(x, 2, x.exp())[:2])

    assert_close(grad(lambda x: vmap(make())(x).sum())(X), looped(make(), torch.sum)(X))


def test_no_input_requires_grad():
    seen = []
    module = nn.Linear(3, 2).double()
    module.register_full_backward_hook(
        lambda _, by_inputs, by_outputs: seen.append(by_outputs[0].shape)
    )
    with pytest.warns(UserWarning, match="no inputs require gradients"):
        vmap(module)(X).sum().backward()
    assert seen == [(2,)]
