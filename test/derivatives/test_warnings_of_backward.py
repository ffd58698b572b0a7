"""Warnings of a backward pass are Python's, for the program to filter, as plain autograd's are."""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import grad, grad_and_value, jacrev, vjp, vmap
from test.oracle import assert_close, loop, rand


def resize(_):
    numbers = torch.zeros(2)
    torch.ops.aten.add.out(numbers, numbers, out=torch.zeros(5))


def function(x):
    """Has an operator in its backward pass that warns, called past PyTorch's own calls."""
    y = x * 1
    y.register_hook(resize)
    return y.sum()


TRANSFORMS = {
    "grad": grad(function),
    "grad by two": grad(lambda x, y: function(x) + y.sum(), (0, 1)),
    "grad_and_value": grad_and_value(function),
    "vjp": lambda x, *_: vjp(function, x)[1](torch.ones((), dtype=x.dtype)),
    "jacrev": jacrev(function),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_warnings(transform):
    x = rand(3, 4)
    args = (x, rand(2)) if transform is TRANSFORMS["grad by two"] else (x,)
    with pytest.warns(UserWarning, match="An output with one or more elements was resized"):
        transform(*args)


@pytest.mark.filterwarnings("error:An output with")
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_errors(transform):
    x = rand(3, 4)
    args = (x, rand(2)) if transform is TRANSFORMS["grad by two"] else (x,)
    with pytest.raises(UserWarning, match="An output with one or more elements was resized"):
        transform(*args)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (1, None), (None, 1), (0, 0)])
def test_none_of_log_sigmoid(in_dims):
    """Whose kernel gives the result the shape of the cotangent, and resizes it with a warning."""
    x, w = (rand(4) if dim is None else rand(3, 4).movedim(0, dim) for dim in in_dims)

    def gradients(x, w):
        return grad(lambda x, w: (F.logsigmoid(x) * w).sum(), (0, 1))(x, w)

    def plain(x, w):
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        return torch.autograd.grad((F.logsigmoid(x) * w).sum(), (x, w))

    assert_close(vmap(gradients, in_dims)(x, w), loop(plain, in_dims)(x, w))
