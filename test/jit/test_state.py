"""What a jitted function reads and writes besides its results: closures, arguments, randomness."""

import copy

import pytest
import torch
from torch import nn

from functorch_ext import grad, grad_and_value, jit, vmap


def jitted(function, **options):
    return jit(function, backend="graph", **options)


def test_closed_over_tensors_may_change_between_calls():
    weight = torch.randn(3)
    function = lambda x: (x * weight).sin()
    fast = jitted(function)
    for _ in range(3):
        x = torch.randn(3)
        torch.testing.assert_close(fast(x), function(x))
        weight.add_(1)


def test_a_closed_over_number_is_no_constant():
    scale = torch.tensor(2.0)
    fast = jitted(lambda x: x * scale)
    x = torch.ones(3)
    torch.testing.assert_close(fast(x), x * 2)
    scale.fill_(5)
    torch.testing.assert_close(fast(x), x * 5)


def test_a_closed_over_tensor_that_becomes_another_kind_is_traced_again():
    weight = nn.Parameter(torch.randn(3))
    fast = jitted(lambda x: x * weight)
    assert fast(torch.ones(3)).requires_grad
    weight.requires_grad_(False)
    assert not fast(torch.ones(3)).requires_grad


def test_training_a_module_with_buffers():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1)).double()
    other = copy.deepcopy(net)
    loss = lambda net: lambda x: net(x).square().mean()
    plain, fast = loss(net), jitted(loss(other))
    first = torch.optim.Adam(net.parameters())
    second = torch.optim.Adam(other.parameters())
    for _ in range(3):
        x = torch.randn(6, 4, dtype=torch.float64)
        for function, optimizer in ((plain, first), (fast, second)):
            optimizer.zero_grad()
            function(x).backward()
            optimizer.step()
    torch.testing.assert_close(net.state_dict(), other.state_dict())


def test_writes_to_arguments_and_views_are_kept():
    def function(a, b):
        a.mul_(2)
        b[0] = a.sum()
        b.t()[1:].add_(a[:2])
        return a + b.sum()

    args = torch.randn(3), torch.randn(2, 3)
    for _ in range(2):
        others = [each.clone() for each in args]
        torch.testing.assert_close(jitted(function)(*others), function(*args))
        torch.testing.assert_close(others, list(args))


def test_writes_to_memory_that_arguments_share():
    def function(a, b):
        a.add_(1)
        return b * 2

    x, y = torch.zeros(4), torch.zeros(4)
    fast = jitted(function)
    torch.testing.assert_close(fast(x[1:], y[:-1]), function(torch.zeros(3), torch.zeros(3)))
    for _ in range(2):
        y = x.clone()
        torch.testing.assert_close(fast(x[1:], x[:-1]), function(y[1:], y[:-1]))
        torch.testing.assert_close(x, y)


def test_a_value_that_the_backward_pass_needs_may_be_overwritten():
    state = torch.randn(3, dtype=torch.float64)
    weight = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def function(x):
        result = (weight * state.clone()).sum() * x
        state.copy_(state * 2)
        return result

    start = state.clone()
    fast = jitted(function)(torch.ones((), dtype=torch.float64))
    fast.backward()
    torch.testing.assert_close(weight.grad, start)
    torch.testing.assert_close(state, start * 2)


def test_random_operators_draw_anew():
    function = lambda x: x + torch.rand(4) * nn.functional.dropout(x, 0.5)
    fast = jitted(function)
    x = torch.randn(4)
    fast(x)
    torch.manual_seed(1)
    found = [fast(x), fast(x)]
    torch.manual_seed(1)
    torch.testing.assert_close(found, [function(x), function(x)])
    assert not torch.equal(*found)


def test_a_dropped_draw_is_the_same_forward_and_backward():
    x = torch.ones(100, requires_grad=True)
    fast = jitted(lambda x: nn.functional.dropout(x, 0.5))(x)
    fast.sum().backward()
    torch.testing.assert_close(x.grad, fast.detach())


def test_results_that_are_inputs_constants_or_no_tensors():
    weight = torch.randn(2)
    function = lambda x: (x, weight, x[0], torch.tensor([1.0, 2.0]), "text", None, 3)
    x = torch.randn(2, 2)
    for _ in range(2):
        found, expected = jitted(function)(x), function(x)
        torch.testing.assert_close(found[:4], expected[:4])
        assert found[4:] == expected[4:]


def test_inside_transforms_the_function_runs_as_it_is():
    function = lambda x: (x.sin() * x).sum()
    fast = jitted(function)
    x = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(vmap(grad(fast))(x), vmap(grad(function))(x))
    torch.testing.assert_close(jitted(vmap(grad(fast)))(x), vmap(grad(function))(x))
    torch.testing.assert_close(
        grad(grad(lambda t: fast(t * x)))(x[0, 0]), grad(grad(lambda t: function(t * x)))(x[0, 0])
    )


def test_nothing_happens_to_tensors_while_the_function_is_traced():
    state = torch.zeros(())
    weight = torch.ones(2, requires_grad=True)

    def function(x):
        state.add_(1)
        return x * weight * state

    jit(function, backend="graph").lower(torch.ones(2))
    assert state == 0 and weight.grad is None


@pytest.mark.parametrize("inplace", [False, True])
def test_making_tensors_inside_vmap(inplace):
    def function(x):
        out = torch.zeros(3)
        if inplace:
            out[:2] = x
        return out + x.sum()

    x = torch.randn(4, 2)
    torch.testing.assert_close(jitted(vmap(function))(x), vmap(function)(x))


def test_a_whole_training_step():
    def made():
        weight = torch.ones(3, dtype=torch.float64, requires_grad=True)

        def step(x):
            gradient, loss = grad_and_value(lambda w: (w * x).sum().square())(weight)
            with torch.no_grad():
                weight.sub_(0.01 * gradient)
            return loss.detach()

        return weight, step

    (weight, step), (other, other_step) = made(), made()
    fast = jitted(other_step)
    for _ in range(3):
        x = torch.randn(3, dtype=torch.float64)
        torch.testing.assert_close(fast(x), step(x))
    torch.testing.assert_close(other, weight)


def test_results_share_memory_as_they_do_without_jit():
    function = lambda x: (x.sin(), x.sin(), (x.sin() * 1.0).view(2, 2), x.detach())
    x = torch.randn(4, requires_grad=True)
    with torch.no_grad():
        results = jitted(function)(x)
    assert not any(result.requires_grad for result in results)
    assert len({result.untyped_storage().data_ptr() for result in results}) == 4
    assert results[3].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
