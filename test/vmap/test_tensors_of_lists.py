"""torch.tensor([x[0], x[1]]): lists whose elements are tensors of a transform are stacked."""

import pytest
import torch

from functorch_ext import functionalize, grad, jvp, vmap
from test.oracle import assert_close, loop, rand
from test.state import failure

MAKERS = {
    "tensor": lambda x: torch.tensor([x[0], x[1]]),
    "tensor, nested": lambda x: torch.tensor([[x[0], 1.0], (2, x[1])]),
    "tensor, of a dtype": lambda x: torch.tensor([x[0], x[1]], dtype=torch.float32),
    "tensor, of ints": lambda x: torch.tensor([x[0].long(), 3], dtype=torch.int32),
    "tensor, of one element": lambda x: torch.tensor([x[:1], x[1:2]]),
    "as_tensor": lambda x: torch.as_tensor([x[0], x[1]]),
    "asarray": lambda x: torch.asarray([x[0], x[1]]),
    "new_tensor": lambda x: x.new_tensor([x[0], x[1]]),
    "new_tensor of a plain tensor": lambda x: torch.ones(2).new_tensor([x[0], x[1]]),
    "complex": lambda x: torch.tensor([x[0] * 1j, 2.0]),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_makers(make):
    x, y = rand(3, 2), rand(4, 3, 2)
    assert_close(vmap(make)(x), loop(make)(x))
    assert_close(vmap(lambda x: make(x) * x)(x), loop(lambda x: make(x) * x)(x))
    assert_close(vmap(vmap(make))(y), loop(loop(make))(y))
    assert_close(vmap(make, in_dims=1)(x.T), loop(make)(x))
    assert_close(functionalize(make)(x[0]), make(x[0]))


def test_no_derivative_flows_through():
    """As in plain PyTorch, where the numbers are read."""
    x = rand(3, 2)
    function = lambda x: (torch.tensor([x[0], x[1]]) * x).sum()
    assert_close(vmap(grad(function))(x), x)
    assert_close(vmap(lambda x: jvp(function, (x,), (x,))[1])(x), (x * x).sum(-1))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.tensor([x, x]),
        lambda x: torch.tensor([[x[0]], [x[0], x[1]]]),
        lambda x: torch.tensor([x[0], "text"]),
        lambda x: torch.tensor([x[0], 3], dtype=torch.int64),
    ],
)
def test_lists_that_pytorch_refuses(function):
    try:
        function(rand(2))
    except Exception as error:
        expected = error
    message = failure(lambda: vmap(function)(rand(3, 2)), type(expected))
    assert message == str(expected)


def test_constructors_cannot_stack():
    message = failure(lambda: vmap(lambda x: torch.Tensor([x[0], x[1]]))(rand(3, 2)), RuntimeError)
    assert "an element of a list" in message and "torch.stack" in message
