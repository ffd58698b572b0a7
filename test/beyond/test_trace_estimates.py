"""Estimates of traces: of complex matrices, of any dtype, and of what isn't a square matrix."""

import pytest
import torch

from functorch_ext import grad, trace_estimate
from test.oracle import assert_close, rand


def test_a_complex_matrix():
    matrix = rand(4, 4, dtype=torch.complex128)
    like = torch.zeros(4, dtype=torch.complex128)
    product = lambda v: matrix @ v
    exact, variance = trace_estimate(product, like, 2, deflate=4)
    assert_close(exact, matrix.trace())
    assert variance < 1e-20
    draws = torch.stack([trace_estimate(product, like, 2, deflate=1).trace for _ in range(2000)])
    assert (draws.mean() - matrix.trace()).abs() < 5 * (draws.var() / len(draws)).sqrt()
    # The basis isn't orthogonal to what is left where conjugates are missing.
    low = rand(4, 1, dtype=torch.complex128)
    of_rank_one = lambda v: low @ (low.mH @ v)
    found = trace_estimate(of_rank_one, like, 2, deflate=1)
    assert_close(found.trace, (low.mH @ low)[0, 0])


def test_dtypes():
    half = torch.ones(3, dtype=torch.bfloat16)
    assert trace_estimate(lambda v: 2 * v, half, 4, deflate=3).trace.dtype == torch.bfloat16
    mixed = {"a": torch.ones(2), "b": rand(3)}
    seen = []

    def product(v):
        seen.append((v["a"].dtype, v["b"].dtype))
        return {"a": 2 * v["a"], "b": 3 * v["b"]}

    assert_close(trace_estimate(product, mixed, 3).trace, torch.tensor(13.0).double())
    assert seen == [(torch.float32, torch.float64)]
    scaled = lambda a: trace_estimate(lambda v: a * v, rand(3), 4, deflate=2).trace
    assert_close(grad(scaled)(rand(3)), torch.ones(3).double())
    nothing = trace_estimate(lambda v: v, torch.ones(0), 4, deflate=2)
    assert nothing.trace == 0 and nothing.variance == 0


@pytest.mark.parametrize("returned", [lambda v: v[:1], lambda v: v.sum(), lambda v: (v, v)])
def test_what_isnt_square(returned):
    with pytest.raises(ValueError, match=r"product to return tensors of the shapes of like, \[\(3"):
        trace_estimate(returned, rand(3), 4)


@pytest.mark.parametrize("like", [torch.arange(3), None, (), 2.0])
def test_what_isnt_a_vector(like):
    with pytest.raises((RuntimeError, ValueError), match=r"functorch_ext.trace_estimate: .*\blike"):
        trace_estimate(lambda v: v, like, 4)


@pytest.mark.parametrize("options", [{"samples": 2.5}, {"samples": 4, "deflate": 1.0}])
def test_what_isnt_a_number_of_samples(options):
    with pytest.raises(ValueError, match="expected whole numbers, samples >= 2"):
        trace_estimate(lambda v: v, rand(3), **options)
