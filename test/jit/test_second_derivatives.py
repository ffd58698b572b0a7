"""``create_graph=True`` through a jitted function: the function itself runs again."""

import pytest
import torch
from torch import nn

from functorch_ext import jit
from test.jit.test_gradients import PROGRAMS, rand


def twice(function, args, seed=0):
    """The gradient of a sum of squared gradients."""
    results = function(*args)
    results = results if isinstance(results, tuple) else (results,)
    roots = [each for each in results if each.requires_grad]
    total = sum((each.square() * 0.5).sum() for each in roots)
    first = torch.autograd.grad(total, args, create_graph=True, allow_unused=True)
    norm = sum(each.square().sum() for each in first if each is not None)
    found = torch.autograd.grad(norm, args, create_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, args)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_second_derivatives(name):
    function, args = PROGRAMS[name]
    found = twice(jit(function, backend="graph"), args)
    torch.testing.assert_close(found, twice(function, args))


@pytest.mark.slow
def test_second_derivatives_through_inductor():
    function, args = PROGRAMS["network"]
    torch.testing.assert_close(twice(jit(function), args), twice(function, args))


def test_third_derivatives():
    x = rand(3)
    function = lambda x: (x.sin() * x).exp().sum()

    def thrice(function):
        derivative = function(x)
        for _ in range(3):
            (derivative,) = torch.autograd.grad(derivative.sum(), x, create_graph=True)
        return derivative

    torch.testing.assert_close(thrice(jit(function, backend="graph")), thrice(function))


def test_a_penalty_on_gradients_by_parameters():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = rand(5, 3)

    def gradients(function):
        (gradient,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        penalty = (gradient.norm(dim=1) - 1).square().mean()
        found = torch.autograd.grad(penalty, net.parameters(), allow_unused=True)
        return [torch.zeros(()) if each is None else each for each in found]

    torch.testing.assert_close(gradients(jit(net, backend="graph")), gradients(net))


def test_an_argument_that_was_computed_from_a_closed_over_leaf():
    weight = rand(3)
    function = lambda x: (x.sin() * weight).square().sum()

    def gradients(function):
        value = function(weight.exp())
        (first,) = torch.autograd.grad(value, weight, create_graph=True)
        return first, torch.autograd.grad(first.square().sum(), weight)[0]

    torch.testing.assert_close(gradients(jit(function, backend="graph")), gradients(function))


def test_arguments_that_are_views_of_each_other():
    base = rand(4)
    function = lambda x, y: (x * y.sum()).sin().sum()

    def gradients(function):
        x = base * 1
        value = function(x, x[:2])
        (first,) = torch.autograd.grad(value, base, create_graph=True)
        return first, torch.autograd.grad(first.square().sum(), base)[0]

    torch.testing.assert_close(gradients(jit(function, backend="graph")), gradients(function))


def test_casts_are_those_of_the_call():
    x, seen = rand(3, 3), []

    def function(x):
        product = x.float() @ x.float()
        seen.append(product.dtype)
        return product.sum()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = jit(function, backend="graph")(x)
    torch.autograd.grad(value, x, create_graph=True)
    assert seen == [torch.bfloat16] * 2
    assert not torch.is_autocast_enabled("cpu")


def _writes(x, state):
    state.add_(1)
    return x.sin()


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda x, state: nn.functional.dropout(x.sin()), "draws random numbers"),
        (_writes, "writes to its inputs"),
    ],
)
def test_what_would_differ_at_another_call_raises(function, message):
    x = rand(3)
    result = jit(function, backend="graph")(x, torch.zeros(())).sum()
    with pytest.raises(RuntimeError, match=message + r".*\n?.*jit\(grad\(f\)\)"):
        torch.autograd.grad(result, x, create_graph=True)


def test_an_input_that_was_written_to_since_raises():
    x, scale = rand(3), torch.ones(3, dtype=torch.float64)
    fast = jit(lambda x: (x * x * scale).sum(), backend="graph")
    result = fast(x)
    scale.add_(1)
    with pytest.raises(RuntimeError, match="was written to since"):
        torch.autograd.grad(result, x, create_graph=True)


def test_inputs_are_let_go_after_the_backward_pass():
    x = rand(3)
    result = jit(torch.sin, backend="graph")(x).sum()
    node = result.grad_fn.next_functions[0][0]
    torch.autograd.grad(result, x, retain_graph=True)
    assert node.inputs is not None
    torch.autograd.grad(result, x)
    assert node.inputs is None
