"""Numbers that the program writes in arithmetic: cast ahead of PyTorch's kernels, to the same."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map_only

from functorch_ext import grad, vmap

OPERATORS = {
    "x * n": lambda x, n: x * n,
    "n * x": lambda x, n: n * x,
    "x + n": lambda x, n: x + n,
    "n - x": lambda x, n: n - x,
    "x - n": lambda x, n: x - n,
    "x / n": lambda x, n: x / n,
    "x + 2 n": lambda x, n: torch.add(x, n, alpha=2),
    "0-dim": lambda x, n: x[0] * n,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("number", [0.1, 3, 2**40 + 1, 1e300, float("nan"), 1 + 2j])
@pytest.mark.parametrize("name", OPERATORS)
def test_same_results(name, number, dtype):
    func = OPERATORS[name]
    x = (torch.randn(4, 3) * 10).to(dtype)
    try:
        expected = torch.stack([func(each, number) for each in x])
    except NotImplementedError:  # complex numbers of halves of bfloat16
        with pytest.raises(NotImplementedError):
            vmap(lambda x: func(x, number))(x)
        return
    exactly = {"rtol": 0, "atol": 0, "equal_nan": True}
    torch.testing.assert_close(vmap(lambda x: func(x, number))(x), expected, **exactly)


def test_booleans_are_refused_as_ever():
    with pytest.raises(RuntimeError, match="[Ss]ubtraction"):
        vmap(lambda x: x - True)(torch.randn(3))


def test_gradients():
    x = torch.randn(4)
    actual = grad(lambda x: (3 * x / 7 - 0.1 + x * 2).sin().sum())(x)
    leaf = x.clone().requires_grad_()
    (3 * leaf / 7 - 0.1 + leaf * 2).sin().sum().backward()
    torch.testing.assert_close(actual, leaf.grad)


def test_a_trace_has_the_numbers_of_the_program():
    assert "0.1)" in make_fx(vmap(lambda x: x * 0.1))(torch.randn(3)).code


class Counted(torch.Tensor):
    """A tensor that Python computes with: it gets the operators, and numbers as Python has them."""

    @staticmethod
    def __new__(cls, value):
        return torch.Tensor._make_wrapper_subclass(cls, value.shape, dtype=value.dtype)

    def __init__(self, value):
        self.value = value

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(cls, lambda x: x.value, (args, kwargs or {}))
        return tree_map_only(torch.Tensor, cls, op(*args, **kwargs))


@pytest.mark.parametrize("number", [2, 0.5])
@pytest.mark.parametrize("name", OPERATORS)
def test_tensors_that_python_computes_with(name, number):
    func = OPERATORS[name]
    x = torch.randn(3, 2)
    actual = vmap(lambda x: func(x, number))(Counted(x))
    torch.testing.assert_close(actual.value, torch.stack([func(each, number) for each in x]))
    twice = vmap(lambda x: vmap(lambda y: func(y[None], number))(x))(Counted(x))
    assert twice.value.shape[:2] == (3, 2)
