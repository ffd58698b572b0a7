"""Functions that don't return what control flow needs, and control flow that can't be had."""

import re

import pytest
import torch
from torch._higher_order_ops import map, scan
from torch.fx.experimental.proxy_tensor import make_fx

import functorch_ext as ft

X = torch.tensor([[1.0, 2.0, 3.0], [-4.0, 1.0, -2.0]])


def error_of(function, x=X):
    with pytest.raises(RuntimeError) as caught:
        ft.vmap(function)(x)
    return str(caught.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda x: x[:2], r"same metadata.*shape \(3,\).*shape \(2,\)"),
        (lambda x: x.int(), r"same metadata.*float32.*int32"),
        (lambda x: (x, x), r"same structure"),
        (lambda x: None, r"same structure|same metadata"),
    ],
)
def test_branches_that_differ(other, message):
    """Their results must be alike."""
    found = error_of(lambda x: torch.cond(x.sum() > 0, lambda x: x.sin(), other, (x,)))
    assert found.startswith("torch.cond: ") and re.search(message, found)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda x: (x[:2],), r"body_fn_output and carried_inputs to have same metadata"),
        (lambda x: (x.double() + 1,), r"body_fn_output and carried_inputs to have same metadata"),
        (lambda x: (x + 1, x), r"body_fn_output and carried_inputs to have the same structure"),
    ],
)
def test_bodies_that_change_the_carry(body, message):
    """It has to stay what it is."""
    found = error_of(lambda x: torch.while_loop(lambda x: x.sum() < 9, body, (x,)))
    assert found.startswith("torch.while_loop: ") and re.search(message, found)


def test_condition_that_is_no_scalar():
    """As in PyTorch."""
    found = error_of(lambda x: torch.while_loop(lambda x: x < 9, lambda x: (x + 1,), (x,)))
    assert "cond_fn must return a boolean scalar tensor or a boolean" in found


def test_steps_that_change_the_carry():
    """Of a scan."""
    found = error_of(lambda x: scan(lambda carry, y: ((carry + y)[None], y * 2), x[0], x))
    assert found.startswith("scan: Expected carry and init to have same metadata")
    found = error_of(lambda x: scan(lambda carry, y: carry + y, x[0], x))
    assert found.startswith("scan: Expect combine_fn to return a tuple (next_carry, y)")


def test_results_of_map_that_differ():
    """They can't be stacked."""
    sizes = iter(range(9))
    found = error_of(lambda x: map(lambda y: y.expand(next(sizes)), x))
    assert "to have same metadata" in found


def test_loop_that_is_traced():
    """How often it runs isn't known."""
    loop = lambda x: torch.while_loop(lambda x: x.sum() < 9, lambda x: (x + 1,), (x,))
    with pytest.raises(
        RuntimeError, match="torch.while_loop inside a transform or jit can't be traced"
    ):
        make_fx(ft.vmap(loop), tracing_mode="fake")(X)


def test_python_control_flow_names_the_operators():
    """An if statement on samples that differ."""
    assert "torch.cond" in error_of(lambda x: x if x.sum() > 0 else -x)
