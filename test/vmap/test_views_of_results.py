"""Views of what an operator computes of tensors that are mapped over an inner dimension.

The operator leaves the samples where they are in memory, between each other's elements. A sample in
a loop is by itself, so a view of it works, and so it does here.
"""

import pytest
import torch
from torch.autograd import functional

from functorch_ext import grad, jvp, vmap
from test.oracle import assert_close, loop, rand

X = rand(2, 5, 3)  # mapped over the second dimension

VIEWS = {
    "view": lambda y: y.view(6),
    "view of unknown size": lambda y: y.view(-1),
    "view_as": lambda y: y.view_as(torch.zeros(3, 2)),
    "view of a dtype": lambda y: y.view(torch.int64),
    "view of a smaller dtype": lambda y: y.view(torch.int32),
    "view of a larger dtype": lambda y: y.to(torch.int32)[..., :2].contiguous().view(torch.int64),
    "view_as_complex": lambda y: torch.view_as_complex(y.reshape(3, 2) * 1),
}
OPERATORS = {
    "sin": torch.sin,
    "relu": torch.relu,  # which autograd saves
    "a chain": lambda x: (x + 1).exp() * x,
    "several results": lambda x: torch.frexp(x).mantissa,
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_values(operator, view):
    function = lambda x: VIEWS[view](OPERATORS[operator](x))
    assert_close(vmap(function, 1)(X), loop(function, 1)(X))
    nested = X[None].expand(4, 2, 5, 3) * torch.arange(1.0, 5).double().view(4, 1, 1, 1)
    assert_close(
        vmap(vmap(function, 1), 0)(nested), torch.stack([loop(function, 1)(x) for x in nested])
    )


@pytest.mark.parametrize("operator", ["sin", "relu", "a chain"])
def test_derivatives(operator):
    weights = rand(6)
    function = lambda x: (OPERATORS[operator](x).view(6) * weights).sum()
    samples = X.movedim(1, 0)
    want = torch.stack([functional.jacobian(function, x) for x in samples])
    assert_close(vmap(grad(function), 1)(X), want)
    assert_close(grad(lambda x: vmap(function, 1)(x).sum())(X), want.movedim(0, 1))
    tangents = vmap(lambda x: jvp(function, (x,), (x,))[1], 1)(X)
    assert_close(tangents, (want * samples).sum((1, 2)))
    assert_close(jvp(vmap(function, 1), (X,), (X,))[1], tangents)


def test_writes_are_shared():
    """The view is one: what is written to it is in what it views, and the other way around."""

    def function(x):
        y = x.sin()
        flat = y.view(6)
        flat[0] = 7
        y[1, 1] = x[0, 0]
        flat.mul_(2)
        return y, flat

    assert_close(vmap(function, 1)(X), loop(function, 1)(X))
    derivative = vmap(grad(lambda x: function(x.clone())[0].sum()), 1)(X)
    expected = [functional.jacobian(lambda x: function(x.clone())[0].sum(), x) for x in X.unbind(1)]
    assert_close(derivative, torch.stack(expected))


def test_what_is_shared_already_stays_where_it_is():
    """An argument is the caller's memory, and other views would miss what is written."""
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        vmap(lambda x: x.view(6), 1)(X)

    def viewed_before(x):
        y = x.sin()
        first = y[0]
        return first.clone(), y.view(6)

    with pytest.raises(RuntimeError, match="view size is not compatible"):
        vmap(viewed_before, 1)(X)

    def with_data(x):
        y = x.sin()
        y.data.add_(1)
        return y.view(6)

    with pytest.raises(RuntimeError, match="view size is not compatible"):
        vmap(with_data, 1)(X)


def test_of_normalized_channels():
    """Batch normalisation joins the samples with the channels."""
    function = lambda x: torch.nn.functional.batch_norm(x, None, None, training=True).view(-1)
    x = rand(3, 4, 2, 5)
    assert_close(vmap(function)(x), loop(function)(x))


def test_bad_sizes():
    with pytest.raises(RuntimeError, match=r"shape '\[7\]' is invalid for input of size 6"):
        vmap(lambda x: x.sin().view(7), 1)(X)
    assert vmap(lambda x: x.sin().view(-1), 1)(X[:, :0]).shape == (0, 6)


def test_masks_that_are_written_to_later():
    """As in a loop, an index is what it was, though the mask of each sample is a number."""

    def function(x):
        mask = x.sum() > 0
        y = x.sin()
        y[mask] = y * 2
        mask.logical_not_()
        return y.sum()

    x = rand(4, 3)
    want = torch.stack([functional.jacobian(function, sample) for sample in x])
    assert_close(vmap(grad(function))(x), want)


class ReadsInForward(torch.autograd.Function):
    """Closes over a result, of which its formulas take a view."""

    @staticmethod
    def of(y):
        class Scaled(torch.autograd.Function):
            @staticmethod
            def forward(ctx, a):
                return a * y.view(-1)[0]

            @staticmethod
            def backward(ctx, g):
                return g * y.view(-1)[0]

        return Scaled


def viewed_without_grad(x):
    y = x.exp()
    with torch.no_grad():
        scale = y.view(-1).sum()
    return (y * scale).sum()


def laid_out_by_einsum(x):
    y = torch.einsum("ij,kj->ki", x, torch.ones(3, 2, dtype=x.dtype)).sin()
    with torch.no_grad():
        largest = y.view(-1).topk(2).indices
    return y.reshape(-1)[largest].sum()


def viewed_in_a_formula(x):
    y = x.sin()
    return (ReadsInForward.of(y).apply(x) * y).sum()


@pytest.mark.parametrize("in_dim", [0, 1])
@pytest.mark.parametrize(
    "func", [viewed_without_grad, laid_out_by_einsum, viewed_in_a_formula], ids=lambda f: f.__name__
)
def test_a_view_without_grad_cuts_no_derivative(func, in_dim):
    x = torch.rand(3, 3, 2, dtype=torch.float64)
    total = lambda each: torch.stack([func(sample) for sample in each.unbind(in_dim)]).sum()
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(leaf), leaf)
    found = grad(lambda x: vmap(func, in_dims=in_dim)(x).sum())(x)
    torch.testing.assert_close(found, expected)
    leaf = x.clone().requires_grad_()
    (outside,) = torch.autograd.grad(vmap(func, in_dims=in_dim)(leaf).sum(), leaf)
    torch.testing.assert_close(outside, expected)


def test_inference_mode_lays_nothing_out_anew():
    def func(x):
        y = x.exp()
        with torch.inference_mode():
            y.view(-1)
        return y.sum()

    x = torch.rand(3, 2, 2)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        vmap(func, in_dims=1)(x)
    torch.testing.assert_close(vmap(lambda x: x.exp().view(-1), 1)(x).shape, torch.Size([2, 6]))
