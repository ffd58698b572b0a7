"""One tensor at several places of what a function returns: a kernel has one handle for it."""

import pytest
import torch
from torch.nn.functional import linear

from functorch_ext import grad, jit, vmap
from test.oracle import assert_close

X = torch.randn(4, 16, dtype=torch.float64)


def several(x):
    y, z = x.sin() * 2, x.cos()
    return y, {"again": y, "other": z}, [z, y, y + z]


def test_the_same_object():
    fast = jit(several)
    for _ in range(3):
        found = fast(X)
        assert found[0] is found[1]["again"] is found[2][1]
        assert found[1]["other"] is found[2][0]
        assert_close(found, several(X))


def test_equal_results_are_not_one():
    """A write to one of them isn't seen in the other."""
    first, second = jit(lambda x: (x.sin() * 2, x.sin() * 2))(X)
    first.zero_()
    assert_close(second, X.sin() * 2)


@pytest.mark.parametrize("transform", [grad, lambda f, argnums: vmap(grad(f, argnums))])
def test_gradients_that_are_one_tensor(transform):
    """By two biases of one sum, as those of a recurrent layer are."""

    def loss(first, second, x):
        return (linear(x, x.outer(x)) + first + second).sin().sum()

    shape = X.shape if transform is not grad else X.shape[1:]
    args = [torch.randn(shape, dtype=torch.float64) for _ in range(3)]
    gradients = transform(loss, (0, 1))
    fast = jit(gradients)
    for _ in range(3):
        assert_close(fast(*args), gradients(*args))


def test_derivatives_from_outside():
    def total(function, x):
        leaf = x.clone().requires_grad_()
        first, named, (_, third, fourth) = function(leaf)
        (first + 2 * named["again"] + 3 * third * named["other"] + fourth).sum().backward()
        return leaf.grad

    fast = jit(several)
    for _ in range(3):
        assert_close(total(fast, X), total(several, X))
