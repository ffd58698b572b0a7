"""Views that copy, which functionalize may turn views into, have the derivatives of the views."""

import pytest
import torch

from functorch_ext import functionalize, grad, jvp, vmap
from test.oracle import assert_close, loop, rand

aten = torch.ops.aten
# A copy, the view that it is of, and what they take.
CASES = {
    "view_as_complex": (aten.view_as_complex_copy, aten.view_as_complex, torch.float64),
    "conj": (aten._conj_copy, torch.conj, torch.complex128),
    "neg": (aten._neg_view_copy, torch.neg, torch.complex128),
    "select": (lambda x: aten.select_copy(x, 1, 0), lambda x: x[:, 0], torch.complex128),
    "slice": (lambda x: aten.slice_copy(x, 0, 1), lambda x: x[1:], torch.complex128),
    "lift_fresh": (aten.lift_fresh_copy, lambda x: x.clone(), torch.complex128),
    "reshape_alias": (
        lambda x: aten._reshape_alias_copy(x, [6], [1]),
        lambda x: x.reshape(6),
        torch.complex128,
    ),
    "view, dtype": (
        lambda x: aten.view_copy.dtype(x, torch.complex128),
        lambda x: torch.view_as_complex(x.unflatten(-1, (-1, 2))),
        torch.float64,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name):
    copy, view, dtype = CASES[name]
    gradient = lambda f: lambda x: grad(lambda x: f(x).abs().sin().sum())(x)
    tangent = lambda f: lambda x: jvp(f, (x,), (x * 2,))[1]
    xs = rand(2, 3, 2, dtype=dtype)
    for transformed in gradient, tangent:
        expected = loop(transformed(view))(xs)
        assert_close(transformed(copy)(xs[0]), expected[0])
        assert_close(vmap(transformed(copy))(xs), expected)


def test_what_is_shared_and_requires_grad_outside():
    """A view of a value that only the program's own autograd differentiates."""
    weight = rand(2).requires_grad_()

    def function(x):
        def inner(x):
            value = torch.view_as_complex(torch.stack([weight[0], weight[1] * 2]))
            return value.abs() * x

        return functionalize(inner, remove="mutations_and_views")(x)

    x = rand(3)
    assert_close(vmap(function)(x), (weight * torch.tensor([1, 2])).norm() * x)
    (actual,) = torch.autograd.grad(vmap(function)(x).sum(), weight)
    (expected,) = torch.autograd.grad((weight * torch.tensor([1, 2])).norm() * x.sum(), weight)
    assert_close(actual, expected)
