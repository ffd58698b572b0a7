"""Errors name what can't be traced or compiled, and what to do."""

import pytest
import torch

from functorch_ext import grad, jit
from functorch_ext._jit import inductor


def test_control_flow_on_values_names_the_line():
    def function(x):
        if x.sum() > 0:  # the line
            return x
        return -x

    with pytest.raises(RuntimeError, match=r"test_jit_errors.py:\d+, in function: if x.sum"):
        jit(function, backend="graph")(torch.ones(3))
    with pytest.raises(RuntimeError, match=r"in function: if x.sum\(\) > 0:"):
        jit(grad(lambda x: function(x).sum()), backend="graph")(torch.ones(3))


def test_control_flow_on_closed_over_values():
    flag = torch.tensor(1.0)
    with pytest.raises(RuntimeError, match="reads the value of a tensor"):
        jit(lambda x: x if flag else -x, backend="graph")(torch.ones(3))


def test_an_argument_as_an_array():
    with pytest.raises(RuntimeError, match=r"reads the value of a tensor.*\n.*in <lambda>: "):
        jit(lambda x: torch.from_numpy(x.numpy() + 1), backend="graph")(torch.ones(3))


def test_errors_of_the_program_stay():
    def fails(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        jit(fails, backend="graph")(torch.ones(3))


def test_a_closed_over_tensor_with_a_graph_of_its_own():
    weight = torch.ones(3, requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="pass the tensor as an argument"):
        jit(lambda x: x * weight, backend="graph")(torch.ones(3))


def test_writing_to_what_requires_grad():
    def function(x, y):
        x.mul_(y)
        return x

    x = torch.ones(3, requires_grad=True) * 1
    with pytest.raises(RuntimeError, match="Return the new value instead"):
        jit(function, backend="graph")(x, torch.ones(3))


def test_unhashable_arguments_and_subclasses():
    with pytest.raises(TypeError, match="must be hashable.*'set'"):
        jit(lambda x, s: x, backend="graph")(torch.ones(3), {1})

    class Mine(torch.Tensor):
        pass

    with pytest.raises(TypeError, match="a Mine, a subclass"):
        jit(torch.sin, backend="graph")(torch.ones(3).as_subclass(Mine))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"backend": "xla"}, "backend must be 'inductor' or 'graph', but got 'xla'"),
        ({"static_argnums": ("x",)}, "static_argnums must be"),
        ({"static_argnames": (1,)}, "static_argnames must be"),
    ],
)
def test_options(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        jit(torch.sin, **options)


def test_no_compiler(monkeypatch):
    monkeypatch.setattr(inductor.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="needs a C\\+\\+ compiler.*backend='graph'"):
        jit(torch.sin)(torch.ones(3))


def test_a_compiled_function_takes_its_signature_alone():
    compiled = jit(torch.sin, backend="graph").lower(torch.ones(3)).compile()
    torch.testing.assert_close(compiled(torch.zeros(3)), torch.zeros(3))
    with pytest.raises(TypeError, match=r"of another: expected tensors \[\(\(3,\)"):
        compiled(torch.zeros(4))


@pytest.mark.parametrize("result", [torch.Tensor.detach, lambda loss: loss, torch.Tensor.item])
def test_backward_inside_leaves_no_gradients(result):
    weight = torch.ones(3, requires_grad=True)

    def function(x):
        loss = (x * weight).sum()
        loss.backward()
        return result(loss)

    with pytest.raises(RuntimeError, match=r"calls \.backward\(\)"):
        jit(function, backend="graph")(torch.ones(3))
    assert weight.grad is None


def test_values_that_require_grad_are_not_written_to_what_does_not():
    state, x = torch.zeros(3), torch.ones(3, requires_grad=True)

    def function(x, y):
        (state if y is None else y).copy_(x * 2)
        return x

    with pytest.raises(RuntimeError, match="to a closed-over tensor"):
        jit(function, backend="graph")(x, None)
    assert not state.requires_grad and state.is_leaf
    with pytest.raises(RuntimeError, match="writes such a value to one"):
        jit(function, backend="graph")(x, torch.zeros(3))
