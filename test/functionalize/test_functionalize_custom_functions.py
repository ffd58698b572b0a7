"""Custom functions inside ``functionalize``: no derivative is lost without a word."""

import pytest
import torch
from torch.autograd import Function

from functorch_ext import functionalize, grad, hessian, jvp, vmap
from test.oracle import assert_close

X = torch.tensor([1.0, 2.0], dtype=torch.float64)


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x**3).sum()

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * 3 * ctx.saved_tensors[0] ** 2


OUTSIDE = {
    "grad": lambda: grad(functionalize(Cube.apply))(X),
    "vmap(grad)": lambda: vmap(grad(functionalize(Cube.apply)))(X[None]),
    "hessian": lambda: hessian(functionalize(Cube.apply))(X),
    "jvp": lambda: jvp(functionalize(Cube.apply), (X,), (X,)),
    "autograd": lambda: functionalize(Cube.apply)(X.clone().requires_grad_()),
}


@pytest.mark.parametrize("use", OUTSIDE.values(), ids=OUTSIDE)
def test_differentiated_outside(use):
    with pytest.raises(RuntimeError, match="Cube.*Differentiate inside instead"):
        use()


def test_differentiated_inside():
    assert_close(functionalize(Cube.apply)(X), (X**3).sum())
    assert_close(functionalize(grad(Cube.apply))(X), 3 * X**2)
    assert_close(functionalize(vmap(grad(Cube.apply)))(X[None]), 3 * X[None] ** 2)
