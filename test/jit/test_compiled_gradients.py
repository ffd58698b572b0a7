"""Backward halves in machine code, which autograd's node calls without Python."""

import gc

import pytest
import torch
from torch import nn

from functorch_ext import jit, vmap
from functorch_ext._pytree import leaves_of
from test.jit.test_gradients import PROGRAMS, gradients_of, rand
from test.jit.test_second_derivatives import twice

pytestmark = pytest.mark.slow


def product(x, weight):
    hidden = torch.tanh(x @ weight)
    return hidden.exp(), hidden.sin().sum(0), x.argmax()


ARGS = rand(3, 4), rand(4, 2)


@pytest.fixture(scope="module")
def fast():
    made = jit(product)
    made(*ARGS)
    assert made._compiled[0].backward_plan is not None
    return made


def test_gradients_of_several_outputs(fast):
    for seed in range(3):
        torch.testing.assert_close(
            gradients_of(fast, ARGS, seed), gradients_of(product, ARGS, seed)
        )
    assert fast(*ARGS)[0].grad_fn.name() == "functorch_ext::JitBackward"


def test_one_output_alone_and_expanded_cotangents(fast):
    for number in range(2):
        found = torch.autograd.grad(fast(*ARGS)[number].sum(), ARGS)
        expected = torch.autograd.grad(product(*ARGS)[number].sum(), ARGS)
        torch.testing.assert_close(found, expected)


def test_derivatives_of_derivatives(fast):
    torch.testing.assert_close(twice(fast, ARGS), twice(product, ARGS))


def test_batched_cotangents(fast):
    cotangents = torch.randn(5, 3, 2, dtype=torch.float64)

    def batched(function):
        return torch.autograd.grad(function(*ARGS)[0], ARGS, cotangents, is_grads_batched=True)

    torch.testing.assert_close(batched(fast), batched(product))
    output = fast(*ARGS)[0]
    mapped = vmap(lambda c: torch.autograd.grad(output, ARGS, c, retain_graph=True))(cotangents)
    torch.testing.assert_close(mapped, batched(product))


def test_conjugated_and_zero_cotangents(fast):
    output, expected = fast(*ARGS)[0], product(*ARGS)[0]
    for cotangent in (
        torch.randn(3, 2, dtype=torch.complex128).conj().imag,
        torch._efficientzerotensor((3, 2), dtype=torch.float64),
    ):
        torch.testing.assert_close(
            torch.autograd.grad(output, ARGS, cotangent, retain_graph=True),
            torch.autograd.grad(expected, ARGS, cotangent, retain_graph=True),
        )


def test_a_second_backward_pass_needs_retain_graph(fast):
    total = fast(*ARGS)[0].sum()
    first = torch.autograd.grad(total, ARGS, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(total, ARGS), first)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(total, ARGS)


def test_a_result_that_is_needed_may_not_be_written_to(fast):
    output = fast(*ARGS)[0]
    with torch.no_grad():
        output.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_hooks_and_accumulation(fast):
    args = [each.detach().requires_grad_() for each in ARGS]
    for _ in range(2):
        output = fast(*args)[0]
        output.register_hook(lambda gradient: gradient * 3)
        output.sum().backward()
    expected = torch.autograd.grad(product(*ARGS)[0].sum() * 6, ARGS)
    torch.testing.assert_close([each.grad for each in args], list(expected))


def test_a_result_outlives_its_function():
    weight = rand(3)
    output = jit(lambda x: (x * weight).sin() * x)(torch.ones(3, dtype=torch.float64))
    gc.collect()
    (found,) = torch.autograd.grad(output.sum(), weight)
    torch.testing.assert_close(found, weight.detach().cos())


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name):
    function, args = PROGRAMS[name]
    compiled = jit(function)
    for seed in range(2):
        torch.testing.assert_close(leaves_of(compiled(*args)), leaves_of(function(*args)))
        torch.testing.assert_close(
            gradients_of(compiled, args, seed), gradients_of(function, args, seed)
        )


def test_training():
    def trained(compile_):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 1)).double()
        loss = compile_(lambda x, y: (net(x) - y).square().mean())
        optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            loss(torch.randn(6, 4).double(), torch.randn(6, 1).double()).backward()
            optimizer.step()
        return list(net.parameters())

    torch.testing.assert_close(trained(jit), trained(lambda f: f))
