"""``torch.jit.trace`` around transforms: plain operators, right for other inputs, or one error."""

import pytest
import torch
from torch.nn.functional import max_pool2d

from functorch_ext import functionalize, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from functorch_ext._pytree import leaves_of

WEIGHT = torch.randn(4, 4)


def matrix(x):
    return (x @ WEIGHT).tanh().sin()


def number(x):
    return matrix(x).sum()


TRACED = {
    "vmap": vmap(matrix),
    "vmap(grad)": vmap(grad(number)),
    "vmap(grad) by two": lambda x: vmap(grad(lambda a, b: number(a * b), (0, 1)))(x, x.cos()),
    "vmap(grad(grad))": vmap(grad(lambda x: grad(number)(x).sum())),
    "functionalize": functionalize(lambda x: x.clone().mul_(2)),
}
REFUSED = {
    "grad": grad(number),
    "grad by two": lambda x: grad(lambda a, b: number(a * b), (0, 1))(x, x),
    "vjp": lambda x: vjp(matrix, x)[1](x)[0],
    "jvp": lambda x: jvp(matrix, (x,), (x,))[1],
    "linearize": lambda x: linearize(matrix, x)[1](x),
    "jacrev": jacrev(matrix),
    "jacfwd": jacfwd(matrix),
    "hessian": hessian(number),
}
REFUSED.update(
    {
        f"vmap({name})": vmap(function)
        for name, function in REFUSED.items()
        if not name.startswith("grad")
    }
)


@pytest.mark.parametrize("name", TRACED)
def test_traced_function_is_right_for_other_inputs(name):
    function = TRACED[name]
    traced = torch.jit.trace(function, (torch.randn(3, 4),))
    x = torch.randn(5, 4)
    torch.testing.assert_close(leaves_of(traced(x)), leaves_of(function(x)))


@pytest.mark.parametrize("name", REFUSED)
def test_other_derivatives_are_refused(name):
    with pytest.raises(NotImplementedError, match="torch.jit.trace takes vmap"):
        torch.jit.trace(REFUSED[name], (torch.randn(3, 4),))
    REFUSED[name](torch.randn(3, 4))


def pairs(x):
    """Forty features of each sample, as a function of its four numbers."""
    return (x.unsqueeze(-1) * torch.linspace(1, 2, 10)).flatten()


# Kernels of our own write into memory, which a tracer doesn't see.
KERNELS = {
    "max_pool2d": vmap(lambda x: max_pool2d(pairs(x).view(1, 5, 8), 3)),
    "max_pool2d's gradient": vmap(grad(lambda x: max_pool2d(pairs(x).view(1, 5, 8), 3).sum())),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_that_write_into_memory(name):
    function = KERNELS[name]
    traced = torch.jit.trace(function, (torch.randn(20, 4),))
    x = torch.randn(20, 4)
    torch.testing.assert_close(traced(x), function(x))
