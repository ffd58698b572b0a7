"""Diagonals and traces of Hessians, against the Hessians made by plain autograd."""

import pytest
import torch

from functorch_ext import (
    functional_call,
    grad,
    hessian,
    hessian_diag,
    hvp,
    jit,
    jvp,
    laplacian,
    trace_estimate,
    vmap,
)
from test.oracle import assert_close, loop, rand

CHUNKS = pytest.mark.parametrize("chunk_size", [None, 2])


def energy(x):
    return (x.sin() * x.prod() + x**3).sum()


def diagonal(x, create_graph=False):
    return torch.autograd.functional.hessian(energy, x, create_graph=create_graph).diagonal()


@CHUNKS
def test_of_a_number(chunk_size):
    x = rand(5)
    assert_close(hessian_diag(energy, chunk_size=chunk_size)(x), diagonal(x))
    assert_close(laplacian(energy, chunk_size=chunk_size)(x), diagonal(x).sum())


@CHUNKS
def test_containers_argnums_and_keywords(chunk_size):
    def function(scale, tree, *, power):
        value = scale[0] * tree["a"].sin() * tree["b"][0].prod() ** power
        return {"vector": value, "number": (value * scale).sum()}

    scale, tree = rand(3), {"a": rand(3), "b": [rand(2, 2)]}
    got = hessian_diag(function, (1, 0), chunk_size=chunk_size)(scale, tree, power=3)
    trace = laplacian(function, (1, 0), chunk_size=chunk_size)(scale, tree, power=3)

    z = torch.cat([tree["a"], tree["b"][0].flatten(), scale])

    def flat(z):
        out = function(z[7:], {"a": z[:3], "b": [z[3:7].reshape(2, 2)]}, power=3)
        return torch.cat([out["vector"], out["number"][None]])

    hessians = [torch.autograd.functional.hessian(lambda z: flat(z)[i], z) for i in range(4)]
    rows = torch.stack([each.diagonal() for each in hessians])
    shaped = lambda row: (
        {"a": row[..., :3], "b": [row[..., 3:7].reshape(*row.shape[:-1], 2, 2)]},
        row[..., 7:],
    )
    assert_close(got, {"vector": shaped(rows[:3]), "number": shaped(rows[3])})
    assert_close(trace, {"vector": rows[:3].sum(1), "number": rows[3].sum()})


def test_in_other_transforms():
    x, v = rand(3, 4), rand(4)
    assert_close(vmap(hessian_diag(energy))(x), loop(diagonal)(x))
    assert_close(vmap(laplacian(energy))(x), loop(lambda x: diagonal(x).sum())(x))
    reference = lambda x: torch.autograd.functional.jacobian(lambda x: diagonal(x, True).sum(), x)
    assert_close(grad(laplacian(energy))(x[0]), reference(x[0]))
    assert_close(vmap(grad(laplacian(energy)))(x), loop(reference)(x))
    assert_close(jvp(laplacian(energy), (x[0],), (v,))[1], reference(x[0]) @ v)


def test_of_a_network():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    model.double()
    x = rand(3, 4)

    def trace(x):
        hessian = torch.autograd.functional.hessian(lambda x: model(x)[0], x)
        return hessian.trace()

    got = vmap(laplacian(lambda x: model(x)[0]))(x)
    assert_close(got.detach(), loop(trace)(x))


def test_gradients_of_a_networks_laplacian():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    model.double()
    parameters = {name: each.detach() for name, each in model.named_parameters()}
    x = rand(4, 3)

    def loss(parameters):
        residual = vmap(laplacian(lambda x: functional_call(model, parameters, (x,))[0]))(x)
        return residual.square().mean()

    traces = [
        torch.autograd.functional.hessian(lambda x: model(x)[0], row, create_graph=True).trace()
        for row in x
    ]
    expected = torch.autograd.grad(
        torch.stack(traces).square().mean(), list(model.parameters()), allow_unused=True
    )
    zeros = [torch.zeros_like(p) for p in model.parameters()]
    filled = [z if g is None else g for g, z in zip(expected, zeros, strict=True)]
    assert_close(grad(loss)(parameters), dict(zip(parameters, filled, strict=True)))
    assert_close(jit(loss, backend="graph")(parameters), loss(parameters))


@CHUNKS
def test_weights(chunk_size):
    x, vector, matrix = rand(4), rand(4), rand(4, 4)
    matrix = matrix + matrix.T
    hessian = torch.autograd.functional.hessian(energy, x)
    weighted = lambda weights: laplacian(energy, weights=weights, chunk_size=chunk_size)(x)
    assert_close(weighted(vector), hessian.diagonal() @ vector)
    assert_close(weighted(matrix), (hessian * matrix).sum())
    many = rand(3, 4)
    assert_close(vmap(weighted)(many), loop(lambda w: hessian.diagonal() @ w)(many))


def test_of_what_is_differentiated_as_a_whole():
    def writes(x):
        y = x.clone()
        y[0] = x[1] ** 3 * x[0]
        return y.sin().sum()

    x, weights = rand(3, 4), rand(4)
    second = torch.autograd.functional.hessian(writes, x[0]).diagonal()
    assert_close(laplacian(writes)(x[0]), second.sum())
    assert_close(laplacian(writes, weights=weights)(x[0]), second @ weights)

    transformed = lambda x: grad(lambda x: (x**3).prod().sin())(x).sum()
    plain = lambda x: (3 * (x**3).prod() * (x**3).prod().cos() / x).sum()
    hessian = lambda x: torch.autograd.functional.hessian(plain, x).trace()
    assert_close(vmap(laplacian(transformed))(x), loop(hessian)(x))


def test_estimates_of_a_trace_and_their_variance():
    generator = torch.Generator().manual_seed(0)
    matrix = rand(12, 12)
    matrix = matrix @ matrix.T
    product = lambda v: {"x": (matrix @ torch.cat([v["x"], v["y"]]))[:5], "y": (matrix @ torch.cat([v["x"], v["y"]]))[5:]}  # fmt: skip
    like = {"x": rand(5), "y": rand(7)}
    estimate = lambda deflate: trace_estimate(
        product, like, 2000, deflate=deflate, generator=generator
    )
    plain, deflated, full = estimate(0), estimate(4), estimate(12)
    for trace, variance in (plain, deflated):
        assert (trace - matrix.trace()) ** 2 < 25 * variance
    # Of random signs z, z^T A z has twice the squares off the diagonal as its variance.
    off_diagonal = matrix - matrix.diagonal().diag()
    expected = 2 * off_diagonal.square().sum() / 2000
    assert 0.7 < plain.variance / expected < 1.4
    assert deflated.variance < plain.variance
    assert_close(full.trace, matrix.trace())


def test_an_estimate_from_products_with_a_hessian():
    generator = torch.Generator().manual_seed(0)
    x = rand(6)
    trace, variance = trace_estimate(hvp(energy).at(x), x, 3000, generator=generator)
    assert (trace - diagonal(x).sum()) ** 2 < 25 * variance


def test_errors():
    for transform in (hessian_diag, laplacian):
        name = transform.__name__
        with pytest.raises(ValueError, match=f"{name}: chunk_size should be None or greater"):
            transform(energy, chunk_size=0)
        with pytest.raises(RuntimeError, match=f"{name}: Got argnum=1"):
            transform(energy, 1)(rand(3))
        with pytest.raises((RuntimeError, ValueError), match=f"{name}: .*floating"):
            transform(energy)(torch.arange(3))
    with pytest.raises(ValueError, match=r"laplacian: expected weights of shape \(3,\)"):
        laplacian(energy, weights=rand(2))(rand(3))
    with pytest.raises(ValueError, match="trace_estimate: expected whole numbers, samples >= 2"):
        trace_estimate(torch.sin, rand(3), 1)


def test_laplacian_of_writes_under_vmap():
    def into_clone(x):
        y = x.clone()
        y.mul_(x)
        y[0] += x[1] ** 3
        return y.sum()

    def into_shared(x):
        y = torch.zeros_like(x)
        y[0] = x[0] ** 2 * x[1]
        y[1:] = x[1:].sin()
        return (y * x).sum()

    xs = rand(4, 3)
    for f in (into_clone, into_shared):
        expected = torch.stack([hessian(f)(x).trace() for x in xs])
        assert_close(vmap(laplacian(f))(xs), expected)
        assert_close(vmap(laplacian(f, chunk_size=2))(xs), expected)
        assert_close(vmap(vmap(laplacian(f)))(xs[None]), expected[None])
        total = lambda xs: vmap(laplacian(f))(xs).sum()
        by_loop = lambda xs: sum(hessian(f)(x).trace() for x in xs)
        assert_close(grad(total)(xs), grad(by_loop)(xs))
