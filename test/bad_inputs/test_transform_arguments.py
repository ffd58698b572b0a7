"""Bad arguments of the transforms themselves: each is refused with a message that names it."""

import enum
import math

import pytest
import torch

from functorch_ext import (
    functional_call,
    functionalize,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    register_batching_rule,
    replace_all_batch_norm_modules_,
    stack_module_state,
    vjp,
    vmap,
)
from test.bad_inputs.judge import INTERNAL
from test.oracle import rand
from test.state import assert_clean_state, live_levels

HUGE = (2**63, -(2**63) - 1, 2**64, 2**31, 99, -99)
NOT_INTS = ("text", 1.5, math.nan, 1j, object(), b"0", torch.tensor(0), {1, 2}, len, torch.float64)
CONTAINERS = ([], {}, [None, None, None], {"a": 0}, (0, 0, 0), [0, [0]], ((0,), 0), "")
JUNK = (*NOT_INTS, *HUGE, *CONTAINERS)

X, Y = rand(3, 2), rand(3, 2)


def product(x, y):
    return x * y


def total(x, y):
    return (x * y).sum()


def refuses(call, *words):
    """call() raises an error that has one of these words in it and leaves no state."""
    levels = live_levels()
    try:
        call()
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        error.with_traceback(None)
    else:
        return "it was accepted"
    assert_clean_state(levels)
    bindings = ("incompatible function arguments", "Unable to cast", "Invoked with", "overflow")
    if INTERNAL.search(message) or any(text in message for text in bindings):
        return f"an internal message: {message}"
    if words and not any(word in message for word in words):
        return f"the message names none of {words}: {message}"
    return None


def check(call, values, *words):
    """Each call(value) is refused."""
    found = [(value, refuses(lambda: call(value), *words)) for value in values]
    faults = [f"{value!r}: {text}"[:500] for value, text in found if text]
    assert not faults, "\n".join(faults)


def test_vmap_in_dims():
    check(lambda bad: vmap(product, bad)(X, Y), (*JUNK, None), "in_dim")
    check(lambda bad: vmap(product, (bad, 0))(X, Y), (*NOT_INTS, *HUGE, {"a": 0}, [0]), "in_dim")
    check(lambda bad: vmap(product, (0, bad))(X, Y), (*NOT_INTS, *HUGE, {"a": 0}, [0]), "in_dim")
    nested = lambda tree: tree["a"]
    check(lambda bad: vmap(nested, ({"a": bad},))({"a": X}), (*NOT_INTS, *HUGE), "in_dim")
    check(lambda bad: vmap(product)(X, bad), (2, None, "text", 1.5, object()), "in_dim", "args[1]")
    check(lambda bad: vmap(product)(X, bad), (rand(), rand(2, 2), rand(0)), "args[1]")


def test_vmap_out_dims():
    values = [x for x in JUNK if x not in ("", [], {})]
    check(lambda bad: vmap(product, 0, bad)(X, Y), (*values, None), "out_dim")
    pair = lambda x, y: (x, y)
    check(lambda bad: vmap(pair, 0, (0, bad))(X, Y), (*NOT_INTS, *HUGE, None), "out_dim")
    check(lambda bad: vmap(pair, 0, (bad,))(X, Y), (*NOT_INTS, *HUGE), "out_dim")


def test_vmap_options():
    sizes = [x for x in JUNK if not isinstance(x, int) or x < 0]
    check(lambda bad: vmap(product, chunk_size=bad)(X, Y), (*sizes, 0, -1), "chunk_size")
    check(lambda bad: vmap(product, axis_size=bad)(X, Y), (*JUNK, -1, 4), "axis_size", "samples")
    unmapped = lambda bad: vmap(lambda: torch.zeros(2), axis_size=bad, in_dims=())()
    check(unmapped, (*sizes, 2**63, 2**64), "axis_size")
    check(lambda bad: vmap(product, randomness=bad)(X, Y), (*JUNK, None, 1), "randomness")
    named = lambda bad: vmap(product, kwarg_dims={"y": bad})(X, y=Y)
    check(named, (*NOT_INTS, *HUGE, [0]), "in_dim")
    tables = [x for x in JUNK if x not in ("", [], {})]
    check(lambda bad: vmap(product, kwarg_dims=bad)(X, y=Y), tables, "kwarg_dims", "in_dim")


def test_vmap_outputs():
    check(lambda bad: vmap(lambda x: bad)(X), (1, 1.5, "text", None, object()), "must only return")


@pytest.mark.parametrize("transform", [grad, grad_and_value, jacrev, jacfwd, hessian])
def test_argnums(transform):
    values = [*JUNK, None, True, (), (0, 0), (0, 2), (0, -2), (None,), (True,), [0], [0, 1]]
    check(lambda bad: transform(total, bad)(X, Y), values, "argnums")
    check(lambda bad: transform(total, (bad,))(X, Y), (*NOT_INTS, *HUGE), "argnums")
    check(lambda bad: transform(total)(bad, Y), (2, 1.5, None, "text", [], {}, [1]), "argnums")
    integers = (torch.ones(3, 2, dtype=torch.int64), torch.ones(3, 2, dtype=torch.bool))
    check(lambda bad: transform(total)(bad, Y), integers, "floating point")


@pytest.mark.parametrize("transform", [grad, grad_and_value])
def test_what_is_differentiated_is_a_number(transform):
    for bad in (rand(2), rand(1), 1.5, None, "text", (rand(), rand())):
        check(lambda bad: transform(lambda x: bad)(X), [bad], "return")
    check(lambda bad: transform(lambda x: bad, has_aux=True)(X), [rand(), [rand(), 1]], "has_aux")
    check(lambda bad: transform(lambda x: bad, has_aux=True)(X), [(1,), (1, 2, 3)], "has_aux")


@pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian])
def test_jacobian_options(transform):
    sizes = [x for x in JUNK if not isinstance(x, int) or x < 0]
    check(lambda bad: transform(total, chunk_size=bad)(X, Y), (*sizes, 0, -1), "chunk_size")
    if transform is not hessian:
        for bad in (1.5, None, "text", (rand(), 1)):
            check(lambda bad: transform(lambda x: bad)(X), [bad], "return")
    check(lambda bad: transform(lambda x: bad, has_aux=True)(X), [rand(), [rand(), 1]], "has_aux")


def test_jacfwd_randomness():
    values = [*JUNK, None]
    check(lambda bad: jacfwd(torch.sin, randomness=bad)(X), values, "randomness")


WRONG_SHAPES = (rand(2), rand(3, 2, 1), rand(), rand(2, 3))
WRONG_TENSORS = (*WRONG_SHAPES, X.float(), X.long(), X.to(torch.complex128))
WRONG_TREES = (None, 1.0, "text", [], (), {}, [X, X], (X, X), {"a": X}, object())


def test_jvp():
    wrong = [(x,) for x in (*WRONG_TENSORS, *WRONG_TREES)]
    check(lambda bad: jvp(torch.sin, (X,), bad), [*wrong, None, X, 1.0, {}, (), (X, X)], "tangent")
    primals = [(1.0,), ("text",), (None,), (X.long(),), X, None, (), {}, 1.0]
    check(lambda bad: jvp(torch.sin, bad, (X,)), primals, "primals")
    check(lambda bad: jvp(lambda x: bad, (X,), (X,)), [None, 1.0, "text", (X, 1)], "return")
    check(lambda bad: jvp(lambda x: bad, (X,), (X,), has_aux=True), [X, [X, 1]], "has_aux")


def test_vjp():
    _, pullback = vjp(torch.sin, X)
    check(pullback, (*WRONG_SHAPES, *WRONG_TREES), "cotangent")
    check(pullback, [X.to(torch.complex128)], "omplex")  # real ones are cast, as by autograd
    check(lambda bad: pullback(*bad), [(), (X, X)], "cotangent")
    _, of_pair = vjp(lambda x: (x, {"a": x}), X)
    pairs = [(X,), (X, X), (X, {"b": X}), (X, {"a": X[0]}), (X, {"a": None}), (X, {"a": X}, X)]
    check(lambda bad: of_pair(*bad), pairs, "cotangent")
    check(lambda bad: vjp(torch.sin, bad), [1.0, "text", None, X.long(), [], {}], "primals")
    check(lambda bad: vjp(lambda x: bad, X), [None, 1.0, "text", (X, 1)], "return")
    check(lambda bad: vjp(lambda x: bad, X, has_aux=True), [X, [X, 1]], "has_aux")


def test_linearize():
    _, push = linearize(torch.sin, X)
    check(push, (*WRONG_TENSORS, *WRONG_TREES), "tangent")
    check(lambda bad: push(*bad), [(), (X, X)], "tangent")
    check(lambda bad: linearize(torch.sin, bad), [1.0, "text", None, X.long(), []], "primals")
    check(lambda bad: linearize(lambda x: bad, X), [None, 1.0, (X, 1)], "return")


def test_functionalize():
    check(lambda bad: functionalize(torch.sin, remove=bad), (*JUNK, None, True), "remove")


def test_modules():
    model = torch.nn.Linear(2, 2)
    values = [x for x in JUNK if x not in ({}, [], "")]
    check(lambda bad: functional_call(bad, {}, (X.float(),)), [*values, None, {}, []], "Module")
    call = lambda bad: functional_call(model, bad, (X.float(),))
    check(call, (*values, None), "dict", "name", "'a'")
    check(lambda bad: call({"weight": bad}), [1.5, "text", [1.0], {}], "weight")
    check(lambda bad: call({bad: X.float()}), ["weight.more", "a.b.c", "", 5], "name", "module")
    check(lambda bad: functional_call(model, {}, (X.float(),), bad), [1.5, "text"], "kwargs")
    check(lambda bad: stack_module_state(bad), [*values, None, [], {}, [1]], "model")
    check(lambda bad: replace_all_batch_norm_modules_(bad), [*values, None], "odule")


def test_batching_rules():
    rule = lambda info, in_dims, *args: (args[0], 0)
    check(lambda bad: register_batching_rule(bad, rule), [*JUNK, None, "no.such::op"])
    check(lambda bad: register_batching_rule("aten::sin", bad), [1.5, "text"])


def test_functions_that_are_none():
    transforms = [vmap, grad, grad_and_value, jacrev, jacfwd, hessian, functionalize]
    for transform in transforms:
        check(lambda bad: transform(bad)(X), [1.5, None, "text", X], "callable")
    check(lambda bad: vjp(bad, X), [1.5, None, "text", X], "callable")
    check(lambda bad: jvp(bad, (X,), (X,)), [1.5, None, "text", X], "callable")
    check(lambda bad: linearize(bad, X), [1.5, None, "text", X], "callable")


class Position(enum.IntEnum):
    FIRST = 0
    SECOND = 1


def test_ints_of_an_enum_are_ints():
    first, second = Position.FIRST, Position.SECOND
    assert torch.equal(vmap(product, second, second)(X, Y), X * Y)
    assert torch.equal(vmap(product, (second, second))(X, Y), (X * Y).T)
    assert torch.equal(vmap(lambda tree: tree["a"], ({"a": second},))({"a": X}), X.T)
    assert torch.equal(vmap(lambda x, y: (x, y), 0, (second, first))(X, Y)[0], X.T)
    assert torch.equal(vmap(product, chunk_size=second)(X, Y), X * Y)
    assert torch.equal(vmap(product, kwarg_dims={"y": first})(X, y=Y), X * Y)
    for transform in (grad, jacrev, jacfwd):
        assert torch.equal(transform(total, second)(X, Y), X)
        assert torch.equal(transform(total, (second, first))(X, Y)[0], X)
    assert grad_and_value(total, second)(X, Y)[0].equal(X)
    assert hessian(total, second, chunk_size=second)(X, Y).eq(0).all()
