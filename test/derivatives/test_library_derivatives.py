"""Operators that programs register without a derivative."""

import numpy
import pytest
import torch

from functorch_ext import grad, jacfwd, jacrev, jvp, linearize, vjp, vmap
from test.oracle import assert_close

X = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)

library = torch.library.Library("functorch_ext_library_test", "FRAGMENT")
library.define("with_numpy(Tensor x) -> Tensor")
library.impl("with_numpy", lambda x: torch.from_numpy(numpy.square(x.detach().numpy())), "CPU")
library.define("with_torch(Tensor x) -> Tensor")
library.impl("with_torch", lambda x: x * x, "CompositeExplicitAutograd")
library.define("of_parts(Tensor x) -> Tensor")
library.impl("of_parts", lambda x: x * x, "CompositeImplicitAutograd")
library.define("count(Tensor x) -> Tensor")
library.impl("count", lambda x: (x > 1.5).sum(), "CPU")
library.define("squared_(Tensor(a!) x) -> ()")


@torch.library.impl(library, "squared_", "CPU")
def squared_(x):
    x.detach().copy_(x * x)


library.define("constant(Tensor x) -> Tensor")
library.impl("constant", lambda x: torch.ones_like(x), "CPU")
library.impl("constant", torch.library.fallthrough_kernel, "Autograd")


@torch.library.custom_op("functorch_ext_library_test::custom", mutates_args=())
def custom(x: torch.Tensor) -> torch.Tensor:
    return x * x


ops = torch.ops.functorch_ext_library_test

TRANSFORMS = {
    "grad": lambda f: grad(lambda x: f(x).sum())(X),
    "vjp": lambda f: vjp(f, X)[1](X)[0],
    "jacrev": lambda f: jacrev(f)(X),
    "jvp": lambda f: jvp(f, (X,), (X,))[1],
    "jacfwd": lambda f: jacfwd(f)(X),
    "linearize": lambda f: linearize(f, X)[1](X),
    "vmap(grad)": lambda f: vmap(grad(lambda x: f(x).sum()))(X),
    "vmap(jvp)": lambda f: vmap(lambda x: jvp(f, (x,), (x,))[1])(X),
    "grad(vmap)": lambda f: grad(lambda x: vmap(f)(x).sum())(X),
    "jvp(vmap)": lambda f: jvp(vmap(f), (X,), (X,))[1],
    "grad(grad)": lambda f: grad(lambda x: grad(lambda x: f(x).sum())(x).sum())(X),
}

pytestmark = pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")


@pytest.mark.parametrize("op", [ops.with_numpy, ops.with_torch, custom], ids=str)
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_without_a_derivative(transform, op):
    name = "custom" if op is custom else str(op).split(".")[-1]
    with pytest.raises((NotImplementedError, RuntimeError), match=f"(?s){name}.*register_autograd"):
        transform(op)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_made_of_others(transform):
    assert_close(transform(ops.of_parts), transform(lambda x: x * x))


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_constants(transform):
    """What has no derivative: numbers without one, or what a program says is constant."""
    for op in (lambda x: x * ops.count(x), lambda x: x * ops.constant(x)):
        plain = lambda x, op=op: x * (op(x) / x).detach()
        assert_close(transform(op), transform(plain))
    op = lambda x: x * ops.with_numpy(x.detach())
    assert_close(transform(op), transform(lambda x: x * (x * x).detach()))


def test_in_place():
    def func(x):
        y = x * 2
        ops.squared_(y)
        return y.sum()

    for transform in (lambda: grad(func)(X), lambda: jvp(func, (X,), (X,))):
        with pytest.raises(NotImplementedError, match="writes to its arguments"):
            transform()


def test_by_torch_autograd_in_vmap():
    def gradient(x):
        x.requires_grad_()
        return torch.autograd.grad(ops.with_torch(x).sum(), x)[0]

    grad(torch.sin)(torch.tensor(1.0))
    with pytest.raises(NotImplementedError, match="register_autograd"):
        vmap(gradient)(X)


def test_by_torch_autograd_in_a_vmap_that_is_the_first_transform():
    library.define("defined_late(Tensor x) -> Tensor")
    library.impl("defined_late", lambda x: x * x, "CompositeExplicitAutograd")

    def function(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(ops.defined_late(x).sum() + x.sum(), x)[0]

    with pytest.raises(NotImplementedError, match="defined_late, which has no derivative"):
        vmap(function)(X)
