"""`requires_grad` inside transforms: of a tensor or what it stands for, as of a sample in a loop."""

import copy

import pytest
import torch
from torch.autograd import functional

from functorch_ext import functionalize, grad, jacrev, jvp, vjp, vmap
from test.oracle import assert_close, loop, rand

XS = rand(4, 3)


def flags_of(transformed):
    """What the function saw of its argument."""
    seen = []

    def function(x):
        seen.append(x.requires_grad)
        return x.sin().sum()

    transformed(function)
    return seen


@pytest.mark.parametrize(
    ("transformed", "flag"),
    [
        (lambda f: vmap(f)(XS), False),
        (lambda f: grad(f)(XS), True),
        (lambda f: vmap(grad(f))(XS), True),
        (lambda f: grad(lambda xs: vmap(f)(xs).sum())(XS), True),
        (lambda f: grad(lambda xs: vmap(vmap(f))(xs).sum())(XS[None]), True),
        (lambda f: vjp(vmap(f), XS), True),
        (lambda f: jacrev(vmap(f))(XS), True),
        (lambda f: grad(functionalize(f))(XS), True),
        (lambda f: jvp(vmap(f), (XS,), (XS,)), False),
        (lambda f: vmap(f)(XS.clone().requires_grad_()), True),
        (lambda f: vmap(f)(XS.clone().requires_grad_().detach()), False),
    ],
)
def test_of_an_argument(transformed, flag):
    assert set(flags_of(transformed)) == {flag}


def test_under_torch_function_modes():
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    with Mode():
        assert flags_of(lambda f: grad(lambda xs: vmap(f)(xs).sum())(XS)) == [True]


def test_what_else_is_read_off_it():
    """Copies are leaves, as they were; the results are differentiated as usual."""

    def function(x):
        assert not copy.deepcopy(x).requires_grad and x.is_leaf and x.grad_fn is None
        parameters = [each for each in (x, x.detach()) if each.requires_grad]
        assert len(parameters) == 1
        y = torch.linspace(x[0], 1, 3, dtype=x.dtype)
        return (y * parameters[0]).sum()

    found = grad(lambda xs: vmap(function)(xs).sum())(XS)
    weights = torch.linspace(0, 1, 3, dtype=torch.float64)
    plain = lambda x: ((x[0] * (1 - weights) + weights) * x).sum()
    assert_close(found, torch.stack([functional.jacobian(plain, x) for x in XS]))


def test_asking_for_the_gradient_by_it_inside():
    """All of it is known outside only: better an error than None."""

    def function(x):
        y = x.sin().sum()
        return torch.autograd.grad(y, x, allow_unused=True)[0].sum()

    with pytest.raises(RuntimeError, match=r"requires grad outside of the vmap only. Call x.requ"):
        grad(lambda xs: vmap(function)(xs).sum())(XS)


def test_outputs_that_depend_on_it_alone():
    """Such an output has no gradient by others, which is None or zero as in a loop."""

    def function(x, w):
        inner = x.detach().requires_grad_()
        none = torch.autograd.grad((w * 2).sum(), inner, allow_unused=True)
        assert none == (None,)
        (both,) = torch.autograd.grad([(w * 2).sum(), inner.sin().sum()], inner)
        return functional.jacobian(lambda _: w * 2, x).sum() + (both * w).sum()

    plain = loop(lambda x, w: (x.cos() * w).sum())
    ws = rand(4, 3)
    found = grad(lambda ws: vmap(function)(XS, ws).sum())(ws)
    assert_close(found, functional.jacobian(lambda ws: plain(XS, ws).sum(), ws))


def test_the_patch_comes_off():
    import functorch_ext

    patches = functorch_ext.patches()
    measured = lambda: flags_of(lambda f: grad(lambda xs: vmap(f)(xs).sum())(XS))
    try:
        patches.take_off()
        without = measured()
    finally:
        patches.put_on()
    assert without == [False] and measured() == [True]


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


@pytest.mark.filterwarnings("ignore:torch.autograd.grad inside")
def test_a_gradient_by_what_a_custom_function_returns_of_a_shared_tensor():
    w = rand(3).requires_grad_()
    xs = rand(4, 3)

    def func(x):
        y = Twice.apply(w)
        return torch.autograd.grad((y.sin() * x).sum(), y)[0]

    torch.testing.assert_close(vmap(func)(xs), (2 * w).cos().detach() * xs)
