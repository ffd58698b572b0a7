"""Chunks of one computation draw the same random numbers, where samples or columns share theirs."""

import functools

import pytest
import torch

from functorch_ext import grad, hessian, jacfwd, jacrev, vmap
from test.oracle import assert_close, rand

X = rand(5, 3)

DRAWS = {
    "rand": lambda x: torch.rand(3, dtype=x.dtype) + 0 * x,
    "several": lambda x: torch.rand(3, dtype=x.dtype) * torch.randn(3, dtype=x.dtype) + x,
    "in place": lambda x: torch.empty_like(x).uniform_() * x,
    "like": lambda x: torch.rand_like(x) * x,
    "permutation": lambda x: x[torch.randperm(3)],
    "dropout": lambda x: torch.nn.functional.dropout(x, 0.5),
    "bernoulli": lambda x: torch.bernoulli(torch.full((3,), 0.5, dtype=x.dtype)) * x,
    "out=": lambda x: torch.rand(3, out=torch.empty(3, dtype=x.dtype)) * x,
    "vmap": lambda x: vmap(lambda y: y * torch.rand(1, dtype=y.dtype), randomness="different")(x),
}


def seeded(function, *args):
    """The result, and what the default generator draws next."""
    torch.manual_seed(3)
    return function(*args), torch.rand(2)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("chunk_size", [1, 2, 4])
def test_samples_share_their_draws(draw, chunk_size):
    whole = seeded(vmap(DRAWS[draw], randomness="same"), X)
    chunks = seeded(vmap(DRAWS[draw], randomness="same", chunk_size=chunk_size), X)
    assert_close(chunks, whole)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("jacobian", [jacfwd, jacrev, hessian])
def test_columns_and_rows_share_their_draws(jacobian, draw):
    if jacobian is jacrev and draw == "out=":
        pytest.skip("out= can't be differentiated")
    func = lambda x: DRAWS[draw](x.sin() * x)
    func = (lambda x: DRAWS[draw](x * x).sin().sum()) if jacobian is hessian else func
    if jacobian is jacfwd:
        jacobian = functools.partial(jacfwd, randomness="same")
    assert_close(seeded(jacobian(func, chunk_size=1), X[0]), seeded(jacobian(func), X[0]))


def test_chunked_columns_inside_a_vmap_that_draws_for_each_sample():
    func = lambda x: (x * torch.rand(3, dtype=x.dtype)).sin()
    columns = lambda chunk_size: jacfwd(func, chunk_size=chunk_size, randomness="same")
    mapped = lambda chunk_size: vmap(columns(chunk_size), randomness="different")
    assert_close(seeded(mapped(1), X), seeded(mapped(None), X))


def test_generators_that_are_given():
    def results(chunk_size):
        first, second = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)

        def func(x):
            a = torch.rand((), generator=first, dtype=x.dtype)
            b = torch.randn((), generator=second, dtype=x.dtype)
            c = torch.empty_like(x).exponential_(generator=first)
            return a * b * c + torch.rand((), dtype=x.dtype) * x

        result = seeded(vmap(func, randomness="same", chunk_size=chunk_size), X)
        return result, torch.rand(3, generator=first), torch.rand(3, generator=second)

    assert_close(results(2), results(None))


def test_chunks_inside_chunks():
    func = lambda x: vmap(lambda y: y * torch.rand((), dtype=y.dtype), randomness="same")(x)
    inner = lambda x: vmap(
        lambda y: y * torch.rand((), dtype=y.dtype), randomness="same", chunk_size=1
    )(x)
    whole = seeded(vmap(func, randomness="same"), X)
    assert_close(seeded(vmap(inner, randomness="same", chunk_size=2), X), whole)


def test_a_backward_that_draws():
    class Noisy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sin()

        @staticmethod
        def backward(ctx, cotangent):
            return cotangent * torch.rand((), dtype=cotangent.dtype)

    assert_close(seeded(jacrev(Noisy.apply, chunk_size=1), X[0]), seeded(jacrev(Noisy.apply), X[0]))


def test_different_draws_differ_between_chunks():
    draws = vmap(lambda x: torch.rand(()) + 0 * x, randomness="different", chunk_size=1)
    assert draws(torch.zeros(5)).unique().numel() == 5
    columns = jacfwd(lambda x: x * torch.rand(()), randomness="different", chunk_size=1)
    assert columns(torch.zeros(5)).diagonal().unique().numel() == 5


def test_what_other_calls_draw_is_not_repeated():
    """Generators that the chunks don't draw from go on; so they do after the last chunk."""
    other = torch.Generator().manual_seed(0)
    state = other.get_state()
    torch.manual_seed(0)
    vmap(lambda x: torch.rand(()) * x, randomness="same", chunk_size=1)(X)
    assert torch.equal(other.get_state(), state)
    first = torch.rand(3)
    torch.manual_seed(0)
    torch.rand(())
    assert_close(first, torch.rand(3))


def test_errors_leave_nothing_behind():
    def fails(x):
        torch.rand(())
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        vmap(fails, randomness="same", chunk_size=1)(X)
    assert torch.rand(3).unique().numel() == 3
    assert_close(grad(lambda x: x.sin().sum())(X), X.cos())
