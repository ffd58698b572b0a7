"""Differentiation by name, values that come with derivatives, and dimensions by a function."""

import pytest
import torch

from functorch_ext import (
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    value_and_jacfwd,
    value_and_jacrev,
    vmap,
)
from test.oracle import assert_close, rand

X, W, B = rand(3), rand(3), rand(1)[0]


def func(x, *, w, b):
    return (x * w["w"]).sin().sum() * b


def by_position(w, x, b):
    return func(x, w=w, b=b)


@pytest.mark.parametrize("transform", [grad, grad_and_value, jacrev, jacfwd, hessian])
def test_argnames(transform):
    tree = {"w": W}
    one = transform(func, argnames="w")(X, w=tree, b=B)
    assert_close(one, transform(by_position)(tree, X, B))
    both = transform(func, argnames=("b", "w"))(X, w=tree, b=B)
    assert_close(both, transform(by_position, argnums=(2, 0))(tree, X, B))
    aux = transform(lambda x, **kwargs: (func(x, **kwargs), "aux"), argnames="b", has_aux=True)
    assert_close(
        aux(X, w=tree, b=B),
        transform(lambda *args: (by_position(*args), "aux"), argnums=2, has_aux=True)(tree, X, B),
    )


def test_compiled():
    torch._dynamo.reset()
    f = lambda w: grad(func, argnames="w")(X, w={"w": w}, b=B)["w"] * 2
    assert_close(torch.compile(f, backend="eager")(W), f(W))
    g = lambda x: hessian(lambda x: x.prod(), with_grad_and_value=True)(x)
    assert_close(torch.compile(g, backend="eager")(W), g(W))


def test_errors_of_argnames():
    with pytest.raises(TypeError, match="by v, but the call has no keyword argument of that name"):
        grad(func, argnames="v")(X, w=W, b=B)
    with pytest.raises(ValueError, match="give argnums or argnames, not both"):
        jacrev(func, 1, argnames="w")
    with pytest.raises(TypeError, match="argnames must be a name or a tuple of names"):
        hessian(func, argnames=["w"])


@pytest.mark.parametrize(
    "with_value, jacobian", [(value_and_jacrev, jacrev), (value_and_jacfwd, jacfwd)]
)
def test_value_and_jacobian(with_value, jacobian):
    f = lambda x, y: {"out": x.sin() * y.sum(), "n": x.sum()}
    args = (X, W)
    for argnums in (0, 1, (1, 0)):
        expected = f(*args), jacobian(f, argnums)(*args)
        assert_close(with_value(f, argnums)(*args), expected)
        assert_close(with_value(f, argnums, chunk_size=2)(*args), expected)
    with_aux = lambda x, y: (f(x, y), x * 2)
    assert_close(with_value(with_aux, has_aux=True)(*args), (with_aux(*args), jacobian(f)(*args)))
    many = rand(4, 3)
    got = vmap(with_value(lambda x: x.sin() * x.sum()))(many)
    assert_close(got[1], vmap(jacobian(lambda x: x.sin() * x.sum()))(many))
    assert_close(got[0], many.sin() * many.sum(-1, keepdim=True))
    # Neither holds a graph.
    value, found = with_value(lambda x: x.sin())(X)
    assert not value.requires_grad and not found.requires_grad


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_hessian_with_gradient_and_value(chunk_size):
    f = lambda x: (x.sin() * x.prod()).sum()
    options = {"with_grad_and_value": True, "chunk_size": chunk_size}
    expected = hessian(f)(X), (grad(f)(X), f(X))
    assert_close(hessian(f, **options)(X), expected)
    got = hessian(lambda x: (f(x), x + 1), has_aux=True, **options)(X)
    assert_close(got, (expected[0], (expected[1][0], (f(X), X + 1))))
    many = rand(4, 3)
    got = vmap(hessian(f, **options))(many)
    assert_close(got, (vmap(hessian(f))(many), (vmap(grad(f))(many), vmap(f)(many))))
    by_name = hessian(lambda *, x: f(x), argnames="x", **options)(x=X)
    assert_close(by_name, expected)


def test_evaluated_once():
    calls = []

    def f(x):
        calls.append(None)
        return x.sin().sum()

    hessian(f, with_grad_and_value=True)(X)
    value_and_jacrev(f)(X)
    value_and_jacfwd(f)(X)
    assert len(calls) == 3


def test_dimensions_by_a_function():
    by = lambda leaf: 0 if isinstance(leaf, torch.Tensor) and leaf.dim() > 1 else None
    many = rand(4, 3)
    f = lambda x, tree, name="n": x * tree["w"] + tree["n"]
    tree = {"w": W, "n": 2}
    assert_close(vmap(f, in_dims=by)(many, tree), many * W + 2)
    assert_close(vmap(f, in_dims=by, chunk_size=3)(many, tree), many * W + 2)
    got = vmap(f, in_dims=by, kwarg_dims={"name": None})(many, tree, name=X)
    assert_close(got, many * W + 2)
    with pytest.raises(ValueError, match="in_dim must be either an integer dimension or None"):
        vmap(f, in_dims=lambda leaf: "0")(many, tree)
