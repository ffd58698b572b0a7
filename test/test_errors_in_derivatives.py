"""What can't be differentiated gets an error that says what was expected, and leaves no state."""

import pytest
import torch

from functorch_ext import (
    functionalize,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    vjp,
)
from test.oracle import rand
from test.state import assert_failure, failure

INTEGERS = torch.arange(3)


def identity(x):
    return x


def pair(x):
    return x, x


def test_what_grad_differentiates():
    assert_failure(
        lambda: grad(identity)(rand(3)),
        RuntimeError,
        """functorch_ext.grad: the function must return a scalar (a tensor without dimensions), but it returned a tensor of shape (3,). Reduce it (for example with .sum()), or use vjp or jacrev.""",
    )
    assert_failure(
        lambda: grad(lambda x: 3.0)(rand()),
        RuntimeError,
        """functorch_ext.grad: the function must return a tensor, but it returned a float. Use has_aux=True to return more than the value to differentiate.""",
    )
    assert_failure(
        lambda: grad(pair)(rand()),
        RuntimeError,
        """functorch_ext.grad: the function must return a tensor, but it returned a tuple. Use has_aux=True to return more than the value to differentiate.""",
    )
    assert_failure(
        lambda: grad_and_value(identity)(rand(3)),
        RuntimeError,
        """functorch_ext.grad_and_value: the function must return a scalar (a tensor without dimensions), but it returned a tensor of shape (3,). Reduce it (for example with .sum()), or use vjp or jacrev.""",
    )


def test_what_grad_differentiates_by():
    assert_failure(
        lambda: grad(torch.sum)(INTEGERS),
        RuntimeError,
        """functorch_ext.grad: the argument at argnums must have a floating-point or complex dtype, but got torch.int64. Convert it first, for example with .double().""",
    )
    assert_failure(
        lambda: grad(identity)(2.0),
        RuntimeError,
        """functorch_ext.grad: the argument at argnums must be a tensor or a container of tensors, but holds a float. Name the tensor arguments with argnums, or close over the others.""",
    )


def test_argnums():
    x = rand(3)
    assert_failure(
        lambda: grad(torch.dot, argnums=2)(x, x),
        RuntimeError,
        """functorch_ext.grad: argnums=2 is out of range for a call with 2 positional arguments. Keyword arguments can't be differentiated.""",
    )
    assert_failure(
        lambda: grad(torch.dot, argnums=-3)(x, x),
        RuntimeError,
        """functorch_ext.grad: argnums=-3 is out of range for a call with 2 positional arguments. Keyword arguments can't be differentiated.""",
    )
    assert_failure(
        lambda: grad(torch.dot, argnums=(0, 0))(x, x),
        RuntimeError,
        """functorch_ext.grad: argnums names an argument twice: (0, 0).""",
    )
    assert_failure(
        lambda: grad(torch.dot, argnums="0")(x, x),
        RuntimeError,
        """functorch_ext.grad: argnums must be an int or a non-empty tuple of ints, but got '0'.""",
    )
    assert_failure(
        lambda: grad(torch.dot, argnums=(0, 1.0))(x, x),
        RuntimeError,
        """functorch_ext.grad: argnums must hold ints, but got 1.0.""",
    )
    assert_failure(
        lambda: grad(lambda: rand())(),
        RuntimeError,
        """functorch_ext.grad: argnums=0 is out of range for a call with 0 positional arguments. Keyword arguments can't be differentiated.""",
    )
    assert_failure(
        lambda: jacrev(torch.dot, argnums=2)(x, x),
        RuntimeError,
        """functorch_ext.jacrev: argnums=2 is out of range for a call with 2 positional arguments. Keyword arguments can't be differentiated.""",
    )
    assert_failure(
        lambda: jacfwd(torch.dot, argnums=2)(x, x),
        RuntimeError,
        """functorch_ext.jacfwd: argnums=2 is out of range for a call with 2 positional arguments. Keyword arguments can't be differentiated.""",
    )
    message = failure(lambda: hessian(torch.dot, argnums=(0, 5))(x, x), RuntimeError)
    assert "argnums=(0, 5) is out of range for a call with 2 positional arguments" in message


def test_aux():
    assert_failure(
        lambda: grad(torch.sum, has_aux=True)(rand(3)),
        RuntimeError,
        """functorch_ext.grad: with has_aux=True the function must return a tuple (output, aux), but it returned a Tensor.""",
    )
    assert_failure(
        lambda: grad_and_value(torch.sum, has_aux=True)(rand(3)),
        RuntimeError,
        """functorch_ext.grad_and_value: with has_aux=True the function must return a tuple (output, aux), but it returned a Tensor.""",
    )
    assert_failure(
        lambda: vjp(torch.sin, rand(3), has_aux=True),
        RuntimeError,
        """functorch_ext.vjp: with has_aux=True the function must return a tuple (output, aux), but it returned a Tensor.""",
    )
    assert_failure(
        lambda: jvp(torch.sin, (rand(3),), (rand(3),), has_aux=True),
        RuntimeError,
        """functorch_ext.jvp: with has_aux=True the function must return a tuple (output, aux), but it returned a Tensor.""",
    )
    assert_failure(
        lambda: jacrev(torch.sin, has_aux=True)(rand(3)),
        RuntimeError,
        """functorch_ext.jacrev: with has_aux=True the function must return a tuple (output, aux), but it returned a Tensor.""",
    )
    assert_failure(
        lambda: jacfwd(torch.sin, has_aux=True)(rand(3)),
        RuntimeError,
        """functorch_ext.jacfwd: with has_aux=True the function must return a tuple (output, aux), but it returned a Tensor.""",
    )


def test_vjp():
    assert_failure(
        lambda: vjp(identity, INTEGERS),
        RuntimeError,
        """functorch_ext.vjp: primals must have a floating-point or complex dtype, but got torch.int64. Convert it first, for example with .double().""",
    )
    assert_failure(
        lambda: vjp(lambda x: 3.0, rand(3)),
        RuntimeError,
        """functorch_ext.vjp: the function must return tensors only, but it returned a float. Return other values as aux (has_aux=True).""",
    )


def test_cotangents():
    assert_failure(
        lambda: vjp(pair, rand(3))[1](rand(3)),
        RuntimeError,
        """functorch_ext.vjp: the cotangent must have the structure of the output: expected (*, *), but got * (no container).""",
    )
    assert_failure(
        lambda: vjp(torch.sin, rand(3))[1](rand(4)),
        RuntimeError,
        """functorch_ext.vjp: a cotangent must have the shape of its output: expected (3,), but got (4,).""",
    )


@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_a_complex_cotangent_of_a_real_output():
    pullback = vjp(torch.sin, rand(3))[1]
    message = failure(lambda: pullback(torch.ones(3, dtype=torch.complex64)), RuntimeError)
    assert "dtype" in message


def test_jvp():
    assert_failure(
        lambda: jvp(identity, (INTEGERS,), (INTEGERS,)),
        RuntimeError,
        """functorch_ext.jvp: primals must have a floating-point or complex dtype, but got torch.int64. Convert it first, for example with .double().""",
    )
    assert_failure(
        lambda: jvp(lambda x: 3.0, (rand(3),), (rand(3),)),
        RuntimeError,
        """functorch_ext.jvp: the function must return tensors only, but it returned a float. Return other values as aux (has_aux=True).""",
    )
    assert_failure(
        lambda: jvp(torch.sin, rand(3), (rand(3),)),
        RuntimeError,
        """functorch_ext.jvp: primals must be a non-empty tuple with one entry per argument, but got a Tensor. For one argument write (x,).""",
    )
    assert_failure(
        lambda: jvp(torch.sin, (rand(3),), rand(3)),
        RuntimeError,
        """functorch_ext.jvp: tangents must be a non-empty tuple with one entry per argument, but got a Tensor. For one argument write (x,).""",
    )
    assert_failure(
        lambda: jvp(lambda x: torch.ones(2), (rand(3),), (rand(3),), strict=True),
        RuntimeError,
        """functorch_ext.jvp: an output is independent of the primals, which strict=True forbids. With strict=False its tangent is zeros.""",
    )


def test_tangents():
    x = (rand(3),)
    assert_failure(
        lambda: jvp(torch.sin, x, (rand(4),)),
        RuntimeError,
        """functorch_ext.jvp: tangent 0 must have the shape and dtype of its primal: expected (3,) and torch.float64, but got (4,) and torch.float64.""",
    )
    assert_failure(
        lambda: jvp(torch.sin, x, (torch.ones(3),)),
        RuntimeError,
        """functorch_ext.jvp: tangent 0 must have the shape and dtype of its primal: expected (3,) and torch.float64, but got (3,) and torch.float32.""",
    )
    assert_failure(
        lambda: jvp(torch.sin, x, ((rand(3), rand(3)),)),
        RuntimeError,
        """functorch_ext.jvp: tangents must have the structure of primals: expected (*,), but got ((*, *),).""",
    )
    assert_failure(
        lambda: jvp(torch.add, (rand(3), rand(3)), x),
        RuntimeError,
        """functorch_ext.jvp: tangents must have the structure of primals: expected (*, *), but got (*,).""",
    )
    assert_failure(
        lambda: linearize(torch.sin, *x)[1](rand(4)),
        RuntimeError,
        """functorch_ext.linearize: tangent 0 must have the shape and dtype of its primal: expected (3,) and torch.float64, but got (4,) and torch.float64.""",
    )
    assert_failure(
        lambda: linearize(torch.sin, *x)[1](rand(3), rand(3)),
        RuntimeError,
        """functorch_ext.linearize: tangents must have the structure of primals: expected (*,), but got (*, *).""",
    )
    assert_failure(
        lambda: linearize(torch.sin, INTEGERS),
        RuntimeError,
        """functorch_ext.linearize: primals must have a floating-point or complex dtype, but got torch.int64. Convert it first, for example with .double().""",
    )


def test_jacobians():
    assert_failure(
        lambda: jacrev(identity)(INTEGERS),
        RuntimeError,
        """functorch_ext.jacrev: the argument at argnums must have a floating-point or complex dtype, but got torch.int64. Convert it first, for example with .double().""",
    )
    assert_failure(
        lambda: jacfwd(identity)(INTEGERS),
        RuntimeError,
        """functorch_ext.jacfwd: the argument at argnums must have a floating-point or complex dtype, but got torch.int64. Convert it first, for example with .double().""",
    )
    message = failure(lambda: hessian(torch.sum)(INTEGERS), RuntimeError)
    assert "must have a floating-point or complex dtype, but got torch.int64" in message
    assert_failure(
        lambda: jacrev(lambda x: 3.0)(rand(3)),
        RuntimeError,
        """functorch_ext.jacrev: the function must return tensors only, but it returned a float. Return other values as aux (has_aux=True).""",
    )
    assert_failure(
        lambda: jacfwd(lambda x: 3.0)(rand(3)),
        RuntimeError,
        """functorch_ext.jacfwd: the function must return tensors only, but it returned a float. Return other values as aux (has_aux=True).""",
    )
    assert_failure(
        lambda: jacrev(torch.sin, chunk_size=0)(rand(3)),
        ValueError,
        """functorch_ext.jacrev: chunk_size must be None or a positive int, but got 0.""",
    )


def test_functionalize():
    assert_failure(
        lambda: functionalize(identity, remove="all")(rand(3)),
        RuntimeError,
        """functorch_ext.functionalize: remove must be 'mutations' or 'mutations_and_views', but got 'all'.""",
    )
