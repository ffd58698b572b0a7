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
        """functorch_ext.grad: Expected f(*args) to return a scalar Tensor, got tensor with 1 dims, of shape (3,). Reduce it (for example with .sum()), or use vjp or jacrev.""",
    )
    assert_failure(
        lambda: grad(lambda x: 3.0)(rand()),
        RuntimeError,
        """functorch_ext.grad: Expected f(*args) to return a Tensor, got <class 'float'>. Use has_aux=True to return more than the value to differentiate.""",
    )
    assert_failure(
        lambda: grad(pair)(rand()),
        RuntimeError,
        """functorch_ext.grad: Expected f(*args) to return a Tensor, got <class 'tuple'>. Use has_aux=True to return more than the value to differentiate.""",
    )
    assert_failure(
        lambda: grad_and_value(identity)(rand(3)),
        RuntimeError,
        """functorch_ext.grad_and_value: Expected f(*args) to return a scalar Tensor, got tensor with 1 dims, of shape (3,). Reduce it (for example with .sum()), or use vjp or jacrev.""",
    )


def test_what_grad_differentiates_by():
    assert_failure(
        lambda: grad(torch.sum)(INTEGERS),
        RuntimeError,
        """functorch_ext.grad: only Tensors of floating point dtype can require gradients, in the argument at argnums, but got torch.int64. Convert it first, for example with .double().""",
    )
    assert_failure(
        lambda: grad(identity)(2.0),
        ValueError,
        """functorch_ext.grad: Thing passed to transform API must be Tensor, in the argument at argnums, got <class 'float'>. Name the tensor arguments with argnums, or close over the others.""",
    )
    model = torch.nn.Linear(2, 1)
    assert_failure(
        lambda: grad(lambda model: model(torch.ones(2)).sum())(model),
        ValueError,
        """functorch_ext.grad: Thing passed to transform API must be Tensor, in the argument at argnums, got <class 'torch.nn.modules.linear.Linear'>. Differentiate by dict(module.named_parameters()), in a function that calls the module as functional_call(module, parameters, args).""",
    )
    assert_failure(
        lambda: grad(identity)(model.parameters()),
        ValueError,
        """functorch_ext.grad: Thing passed to transform API must be Tensor, in the argument at argnums, got <class 'generator'>. An iterator isn't looked into: for parameters write dict(module.named_parameters()).""",
    )


def test_argnums():
    x = rand(3)
    assert_failure(
        lambda: grad(torch.dot, argnums=2)(x, x),
        RuntimeError,
        """functorch_ext.grad: Got argnum=2, but only 2 positional inputs (argnums=2). Keyword arguments can't be differentiated.""",
    )
    assert_failure(
        lambda: grad(torch.dot, argnums=-3)(x, x),
        RuntimeError,
        """functorch_ext.grad: Got argnum=-3, but only 2 positional inputs (argnums=-3). Keyword arguments can't be differentiated.""",
    )
    assert_failure(
        lambda: grad(torch.dot, argnums=(0, 0))(x, x),
        RuntimeError,
        """functorch_ext.grad: argnums elements must be unique, but (0, 0) names an argument twice.""",
    )
    assert_failure(
        lambda: grad(torch.dot, argnums="0")(x, x),
        RuntimeError,
        """functorch_ext.grad: argnums must be int or Tuple[int, ...], got: <class 'str'>.""",
    )
    assert_failure(
        lambda: grad(torch.dot, argnums=(0, 1.0))(x, x),
        RuntimeError,
        """functorch_ext.grad: argnum must be int, got: <class 'float'> in argnums=(0, 1.0).""",
    )
    assert_failure(
        lambda: grad(lambda: rand())(),
        RuntimeError,
        """functorch_ext.grad: Got argnum=0, but only 0 positional inputs (argnums=0). Keyword arguments can't be differentiated.""",
    )
    assert_failure(
        lambda: jacrev(torch.dot, argnums=2)(x, x),
        RuntimeError,
        """functorch_ext.jacrev: Got argnum=2, but only 2 positional inputs (argnums=2). Keyword arguments can't be differentiated.""",
    )
    assert_failure(
        lambda: jacfwd(torch.dot, argnums=2)(x, x),
        RuntimeError,
        """functorch_ext.jacfwd: Got argnum=2, but only 2 positional inputs (argnums=2). Keyword arguments can't be differentiated.""",
    )
    message = failure(lambda: hessian(torch.dot, argnums=(0, 5))(x, x), RuntimeError)
    assert "Got argnum=5, but only 2 positional inputs (argnums=(0, 5))" in message


def test_aux():
    assert_failure(
        lambda: grad(torch.sum, has_aux=True)(rand(3)),
        RuntimeError,
        """functorch_ext.grad: output of function f should be a tuple: (output, aux) if has_aux is True, but it is a Tensor.""",
    )
    assert_failure(
        lambda: grad_and_value(torch.sum, has_aux=True)(rand(3)),
        RuntimeError,
        """functorch_ext.grad_and_value: output of function f should be a tuple: (output, aux) if has_aux is True, but it is a Tensor.""",
    )
    assert_failure(
        lambda: vjp(torch.sin, rand(3), has_aux=True),
        RuntimeError,
        """functorch_ext.vjp: output of function f should be a tuple: (output, aux) if has_aux is True, but it is a Tensor.""",
    )
    assert_failure(
        lambda: jvp(torch.sin, (rand(3),), (rand(3),), has_aux=True),
        RuntimeError,
        """functorch_ext.jvp: output of function f should be a tuple: (output, aux) if has_aux is True, but it is a Tensor.""",
    )
    assert_failure(
        lambda: jacrev(torch.sin, has_aux=True)(rand(3)),
        RuntimeError,
        """functorch_ext.jacrev: output of function f should be a tuple: (output, aux) if has_aux is True, but it is a Tensor.""",
    )
    assert_failure(
        lambda: jacfwd(torch.sin, has_aux=True)(rand(3)),
        RuntimeError,
        """functorch_ext.jacfwd: output of function f should be a tuple: (output, aux) if has_aux is True, but it is a Tensor.""",
    )


def test_vjp():
    assert_failure(
        lambda: vjp(identity, INTEGERS),
        RuntimeError,
        """functorch_ext.vjp: only Tensors of floating point dtype can require gradients, in primals, but got torch.int64. Convert it first, for example with .double().""",
    )
    assert_failure(
        lambda: vjp(lambda x: 3.0, rand(3)),
        RuntimeError,
        """functorch_ext.vjp: expected f(*primals) to return only tensors, got unsupported type <class 'float'>: a float. Return other values as aux (has_aux=True).""",
    )


def test_cotangents():
    assert_failure(
        lambda: vjp(pair, rand(3))[1](rand(3)),
        RuntimeError,
        """functorch_ext.vjp: Expected pytree structure of cotangents to be the same as pytree structure of outputs, (*, *), but got * (no container).""",
    )
    assert_failure(
        lambda: vjp(torch.sin, rand(3))[1](rand(4)),
        RuntimeError,
        """functorch_ext.vjp: Mismatch in shape: a cotangent has the shape (4,) and its output (3,).""",
    )


@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_a_complex_cotangent_of_a_real_output():
    pullback = vjp(torch.sin, rand(3))[1]
    message = failure(lambda: pullback(torch.ones(3, dtype=torch.complex64)), RuntimeError)
    assert "dtype" in message


def test_jvp():
    assert_failure(
        lambda: jvp(identity, (INTEGERS,), (INTEGERS,)),
        ValueError,
        """functorch_ext.jvp: Expected primals to be floating point or complex, but got torch.int64. Convert it first, for example with .double().""",
    )
    assert_failure(
        lambda: jvp(lambda x: 3.0, (rand(3),), (rand(3),)),
        RuntimeError,
        """functorch_ext.jvp: expected f(*primals) to return only tensors, got unsupported type <class 'float'>: a float. Return other values as aux (has_aux=True).""",
    )
    assert_failure(
        lambda: jvp(torch.sin, rand(3), (rand(3),)),
        RuntimeError,
        """functorch_ext.jvp: Expected primals to be a tuple with one entry per argument, but got a Tensor. For one argument write (x,).""",
    )
    assert_failure(
        lambda: jvp(torch.sin, (rand(3),), rand(3)),
        RuntimeError,
        """functorch_ext.jvp: Expected primals and tangents to have the same python structure, (*,), but the tangents have * (no container).""",
    )
    assert_failure(
        lambda: jvp(lambda x: torch.ones(2), (rand(3),), (rand(3),), strict=True),
        RuntimeError,
        """functorch_ext.jvp: The output of f is independent of the inputs, which strict=True forbids. With strict=False its tangent is zeros.""",
    )


def test_tangents():
    x = (rand(3),)
    assert_failure(
        lambda: jvp(torch.sin, x, (rand(4),)),
        RuntimeError,
        """functorch_ext.jvp: tangent 0 in flattened pytree doesn't match the shape and dtype of its primal: expected (3,) and torch.float64, but got (4,) and torch.float64.""",
    )
    assert_failure(
        lambda: jvp(torch.sin, x, (torch.ones(3),)),
        RuntimeError,
        """functorch_ext.jvp: tangent 0 in flattened pytree doesn't match the shape and dtype of its primal: expected (3,) and torch.float64, but got (3,) and torch.float32.""",
    )
    assert_failure(
        lambda: jvp(torch.sin, x, ((rand(3), rand(3)),)),
        RuntimeError,
        """functorch_ext.jvp: Expected primals and tangents to have the same python structure, (*,), but the tangents have ((*, *),).""",
    )
    assert_failure(
        lambda: jvp(torch.add, (rand(3), rand(3)), x),
        RuntimeError,
        """functorch_ext.jvp: Expected primals and tangents to have the same python structure, (*, *), but the tangents have (*,).""",
    )
    assert_failure(
        lambda: linearize(torch.sin, *x)[1](rand(4)),
        RuntimeError,
        """functorch_ext.linearize: tangent 0 in flattened pytree doesn't match the shape and dtype of its primal: expected (3,) and torch.float64, but got (4,) and torch.float64.""",
    )
    assert_failure(
        lambda: linearize(torch.sin, *x)[1](rand(3), rand(3)),
        RuntimeError,
        """functorch_ext.linearize: Expected primals and tangents to have the same python structure, (*,), but the tangents have (*, *).""",
    )
    assert_failure(
        lambda: linearize(torch.sin, INTEGERS),
        ValueError,
        """functorch_ext.linearize: Expected primals to be floating point or complex, but got torch.int64. Convert it first, for example with .double().""",
    )


def test_jacobians():
    assert_failure(
        lambda: jacrev(identity)(INTEGERS),
        RuntimeError,
        """functorch_ext.jacrev: only Tensors of floating point dtype can require gradients, in the argument at argnums, but got torch.int64. Convert it first, for example with .double().""",
    )
    assert_failure(
        lambda: jacfwd(identity)(INTEGERS),
        ValueError,
        """functorch_ext.jacfwd: Expected the argument at argnums to be floating point or complex, but got torch.int64. Convert it first, for example with .double().""",
    )
    message = failure(lambda: hessian(torch.sum)(INTEGERS), ValueError)
    assert "to be floating point or complex, but got torch.int64" in message
    assert_failure(
        lambda: jacrev(lambda x: 3.0)(rand(3)),
        RuntimeError,
        """functorch_ext.jacrev: expected f(*primals) to return only tensors, got unsupported type <class 'float'>: a float. Return other values as aux (has_aux=True).""",
    )
    assert_failure(
        lambda: jacfwd(lambda x: 3.0)(rand(3)),
        RuntimeError,
        """functorch_ext.jacfwd: expected f(*primals) to return only tensors, got unsupported type <class 'float'>: a float. Return other values as aux (has_aux=True).""",
    )
    assert_failure(
        lambda: jacrev(torch.sin, chunk_size=0)(rand(3)),
        ValueError,
        """functorch_ext.jacrev: `chunk_size` should be greater than 0, or None, but got 0. Give a whole number, or text: 'auto' or an amount of memory, such as '512 MiB'.""",
    )


def test_functionalize():
    assert_failure(
        lambda: functionalize(identity, remove="all")(rand(3)),
        RuntimeError,
        """functorch_ext.functionalize: received invalid argument for remove='all'. It must be 'mutations' or 'mutations_and_views'.""",
    )
