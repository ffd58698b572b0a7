"""Control flow where torch.func's transforms take part, and where programs are traced."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import functorch_ext as ft
from test import oracle
from test.control_flow.programs import PROGRAMS

SLOW = pytest.mark.slow
TRACEABLE = [name for name in PROGRAMS if "while" not in name]


def total(function):
    return lambda *args: function(*args).sum()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", ["cond", "cond, NaN in the other branch", "scan", "map"])
def test_ours_inside_torch_func(name):
    """torch.func.vmap's samples aren't ours to look at: both branches are computed."""
    program = PROGRAMS[name]
    x, y = oracle.rand(4, 3), oracle.rand(4, 3)
    oracle.assert_close(
        torch.func.vmap(ft.grad(total(program.with_operator)))(x, y),
        oracle.loop(oracle.grad(total(program.plain)))(x, y),
    )


@pytest.mark.parametrize("name", ["cond", "cond closing over", "scan"])
def test_torch_func_inside_ours(name):
    """Theirs has rules for some of the operators."""
    program = PROGRAMS[name]
    x, y = oracle.rand(4, 3), oracle.rand(5, 3)
    oracle.assert_close(
        ft.vmap(torch.func.vmap(program.with_operator, (None, 0)), (0, None))(x, y),
        oracle.loop(oracle.loop(program.plain, (None, 0)), (0, None))(x, y),
    )


@pytest.mark.parametrize(
    "mode", ["fake", pytest.param("real", marks=SLOW), pytest.param("symbolic", marks=SLOW)]
)
@pytest.mark.parametrize("name", TRACEABLE)
def test_traced(name, mode):
    """The graph computes other samples than it was traced with."""
    program = PROGRAMS[name]
    mapped = ft.vmap(ft.grad(total(program.with_operator)), (0, None))
    graph = make_fx(mapped, tracing_mode=mode)(oracle.rand(6, 3), oracle.rand(3))
    for _ in range(3):
        x, y = oracle.rand(6, 3), oracle.rand(3)
        expected = oracle.loop(oracle.grad(total(program.plain)), (0, None))(x, y)
        oracle.assert_close(graph(x, y), expected)


@pytest.mark.parametrize("name", TRACEABLE)
def test_jit(name):
    """The same program again, on other numbers."""
    program = PROGRAMS[name]
    compiled = ft.jit(ft.grad(total(program.with_operator)))
    for _ in range(3):
        x, y = oracle.rand(3), oracle.rand(3)
        oracle.assert_close(compiled(x, y), oracle.grad(total(program.plain))(x, y))


QUICK = ("map",)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=SLOW) for name in TRACEABLE]
)
def test_jit_without_a_transform(name):
    program = PROGRAMS[name]
    compiled = ft.jit(program.with_operator)
    for _ in range(2):
        x, y = oracle.rand(3, requires_grad=True), oracle.rand(3)
        value = compiled(x, y)
        oracle.assert_close(value, program.plain(x, y))
        gradient = torch.autograd.grad(value.sum(), x)
        oracle.assert_close(gradient, torch.autograd.grad(program.plain(x, y).sum(), x))


def test_a_loop_on_values_cannot_be_jitted():
    program = PROGRAMS["while_loop"]
    for function in (program.with_operator, ft.grad(total(program.with_operator))):
        with pytest.raises(RuntimeError, match="torch.while_loop inside a transform or jit"):
            ft.jit(function)(oracle.rand(3), oracle.rand(3))
