"""Across samples: against functions of the whole batch in plain torch."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from functorch_ext import (
    all_gather,
    axis_index,
    axis_size,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jit,
    jvp,
    pmax,
    pmean,
    pmin,
    ppermute,
    psum,
    vjp,
    vmap,
)
from test.oracle import assert_close, rand

X, V = rand(3, 4), rand(3, 4)
PERM = [(0, 2), (2, 1)]


def permuted(x):
    return torch.stack([x[0] * 0, x[2], x[0]])


# Of a sample, and the same of the batch.
FUNCTIONS = {
    "psum": (lambda x: psum(x, "b"), lambda x: x.sum(0).expand_as(x)),
    "psum of what is computed": (
        lambda x: x * psum(x.sin() * x.prod(), "b"),
        lambda x: x * (x.sin() * x.prod(-1, keepdim=True)).sum(0),
    ),
    "pmean": (lambda x: x - pmean(x, "b"), lambda x: x - x.mean(0)),
    "pmax": (lambda x: pmax(x, "b") * x, lambda x: x.amax(0) * x),
    "pmin": (lambda x: pmin(x, "b") * x, lambda x: x.amin(0) * x),
    "all_gather": (lambda x: all_gather(x, "b") @ x, lambda x: (x @ x.mT).mT),
    "all_gather, last": (lambda x: x @ all_gather(x, "b", -1), lambda x: x @ x.mT),
    "ppermute": (lambda x: x.sin() * ppermute(x, "b", PERM), lambda x: x.sin() * permuted(x)),
    "ppermute, in a circle": (
        lambda x: x.sin() * ppermute(x, "b", [[2, 1], (1, torch.tensor(0)), (0, 2)]),
        lambda x: x.sin() * x.roll(-1, 0),
    ),
    "ppermute, two exchanged": (
        lambda x: x * ppermute(x.sin(), "b", [(0, 1), (1, 0), (2, 2)]),
        lambda x: x * x.sin()[[1, 0, 2]],
    ),
    "axis_index": (lambda x: x * axis_index("b"), lambda x: x * torch.arange(3)[:, None]),
    "axis_size": (lambda x: x * axis_size("b") * psum(2, "b"), lambda x: x * 3 * 6),
    "of a constant": (lambda x: x * psum(torch.ones(4), "b"), lambda x: x * 3),
}
EACH = pytest.mark.parametrize("name", FUNCTIONS)


def pair(name):
    sample, batch = FUNCTIONS[name]
    return vmap(sample, axis_name="b"), batch


@EACH
def test_values_and_derivatives_around(name):
    mapped, batch = pair(name)
    loss = lambda f: lambda x: f(x).cos().sum()
    for transform in (
        lambda f: f(X),
        lambda f: grad(loss(f))(X),
        lambda f: jvp(f, (X,), (V,)),
        lambda f: vjp(f, X)[1](f(V)),
        lambda f: jacfwd(f)(X),
        lambda f: jacrev(f)(X),
        lambda f: hessian(loss(f))(X),
        lambda f: vmap(f, 1, 1)(torch.stack([X, V], 1)),
    ):
        assert_close(transform(mapped), transform(batch))


@EACH
def test_derivatives_inside(name):
    """A sample's derivative is that of all samples' losses by what the sample has."""
    sample, batch = FUNCTIONS[name]
    got = vmap(grad(lambda x: sample(x).cos().sum()), axis_name="b")(X)
    assert_close(got, grad(lambda x: batch(x).cos().sum())(X))
    tangent = vmap(lambda x, v: jvp(sample, (x,), (v,))[1], axis_name="b")(X, V)
    assert_close(tangent, jvp(batch, (X,), (V,))[1])
    second = vmap(
        grad(lambda x: grad(lambda x: sample(x).cos().sum())(x).sin().sum()), axis_name="b"
    )
    plain = grad(lambda x: grad(lambda x: batch(x).cos().sum())(x).sin().sum())
    assert_close(second(X), plain(X))


@pytest.mark.parametrize("inner", [0, 1])
@pytest.mark.parametrize("outer", [0, 1])
def test_names_of_nested_maps(inner, outer):
    x = rand(3, 4, 2) if (inner, outer) == (0, 0) else rand(3, 4, 5)

    def both(y):
        return (
            psum(y, "outer"), psum(y, "inner"), psum(y, ("inner", "outer")),
            y - pmean(y, ("outer", "inner")), axis_index("outer") * 10 + axis_index("inner"),
            ppermute(y, "outer", [(0, 1)]),
        )  # fmt: skip

    got = vmap(vmap(both, inner, axis_name="inner"), outer, axis_name="outer")(x)
    y = x.movedim(outer, 0).movedim(1 + inner, 1)
    shifted = torch.zeros_like(y)
    shifted[1] = y[0]
    numbers = torch.arange(y.shape[0])[:, None] * 10 + torch.arange(y.shape[1])
    expected = (
        y.sum(0, keepdim=True).expand_as(y), y.sum(1, keepdim=True).expand_as(y),
        y.sum((0, 1), keepdim=True).expand_as(y), y - y.mean((0, 1)), numbers, shifted,
    )  # fmt: skip
    assert_close(got, expected)


def test_the_innermost_of_one_name():
    f = vmap(lambda y: psum(y, "b"), axis_name="b")
    assert_close(vmap(f, axis_name="b")(X), X.sum(1, keepdim=True).expand_as(X))


def test_what_only_an_outer_map_maps():
    w = rand(4)
    f = lambda x: vmap(lambda w: psum(w * 1, "b") + psum(x, "b").sum())(w)
    assert_close(vmap(f, axis_name="b")(X), (3 * w + X.sum()).expand(3, 4))


def test_batch_norm_across_samples():
    def normalized(x, weight):
        mean = pmean(x, "batch")
        variance = pmean((x - mean) ** 2, "batch")
        return weight * (x - mean) / (variance + 1e-5).sqrt()

    plain = lambda x, weight: torch.nn.functional.batch_norm(x, None, None, weight, training=True)
    mapped = vmap(normalized, (0, None), axis_name="batch")
    weight = rand(4)
    assert_close(mapped(X, weight), plain(X, weight))
    by = lambda f: grad(lambda x, w: (f(x, w) ** 3).sum(), argnums=(0, 1))(X, weight)
    assert_close(by(mapped), by(plain))


def test_a_contrastive_loss():
    def loss(x, y):
        return cross_entropy(all_gather(y, "batch") @ x, axis_index("batch"))

    y = rand(3, 4)
    plain = lambda x, y: cross_entropy(x @ y.mT, torch.arange(3), reduction="none")
    mapped = vmap(loss, axis_name="batch")
    assert_close(mapped(X, y), plain(X, y))
    by = lambda f: grad(lambda x, y: f(x, y).sum(), argnums=(0, 1))(X, y)
    assert_close(by(mapped), by(plain))
    assert_close(vmap(grad(loss, argnums=(0, 1)), axis_name="batch")(X, y), by(plain))


def test_containers():
    got = vmap(
        lambda t: psum({"a": t["a"], "n": [1.5]}, "b"), axis_name="b", out_dims={"a": 0, "n": None}
    )
    assert_close(got({"a": X}), {"a": X.sum(0).expand_as(X), "n": [4.5]})


def test_compiled_and_traced():
    torch._dynamo.reset()
    f = lambda x: vmap(lambda x: (x - pmean(x, "b")).sin(), axis_name="b")(x) * 2
    assert_close(torch.compile(f, backend="eager")(X), f(X))
    assert_close(jit(f, backend="graph")(X), f(X))


def test_errors():
    with pytest.raises(
        NameError, match="no vmap with axis_name='b' is around; those that are: 'c'"
    ):
        vmap(lambda x: psum(x, "b"), axis_name="c")(X)
    with pytest.raises(NameError, match="those that are: none"):
        psum(X, "c")
    for perm in ([(0, 3)], [(0, -1)], [(0, 1), (0, 2)], [(0, 1), (2, 1)], [(2**70, 0)]):
        with pytest.raises(ValueError, match="perm must name each of the 3 samples at most once"):
            vmap(lambda x: ppermute(x, "b", perm), axis_name="b")(X)
    with pytest.raises(TypeError, match="expected tensors to combine across 'b', but got str"):
        vmap(lambda x: all_gather("x", "b"), axis_name="b")(X)
    with pytest.raises(ValueError, match="chunk_size and axis_name exclude each other"):
        vmap(lambda x: x, axis_name="b", chunk_size=2)
