"""Transforms in what a checkpoint computes again, in hooks, and in operators' implementations."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointError, checkpoint, set_checkpoint_early_stop

from functorch_ext import (
    functionalize,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    vmap,
)
from test.oracle import assert_close

W = torch.tensor([0.4, -1.2], dtype=torch.float64)
X = torch.tensor([[1.0, 2.0], [3.0, -0.5], [0.3, 0.7]], dtype=torch.float64)


def number(w, x):
    return ((w * w).sum() * x**3 + (w * x).sin()).sum()


def push(w, f, x):
    return jvp(f, (x,), (w.cos(),))[1]


def written(w, x):
    y = x.clone()
    y[0] *= w[1]
    return number(w, y)


INSIDE = {
    "grad": lambda w, x: grad(lambda y: number(w, y))(x),
    "jvp": lambda w, x: push(w, lambda y: number(w, y), x),
    "jvp(jvp)": lambda w, x: push(w, lambda z: push(w, lambda y: number(w, y), z), x),
    "jvp(grad)": lambda w, x: push(w, grad(lambda y: number(w, y)), x),
    "grad(jvp)": lambda w, x: grad(lambda z: push(w, lambda y: number(w, y), z))(x),
    "grad(grad)": lambda w, x: grad(lambda z: grad(lambda y: number(w, y))(z).cos().sum())(x),
    "hessian": lambda w, x: hessian(lambda y: number(w, y))(x),
    "jacfwd(hessian)": lambda w, x: jacfwd(hessian(lambda y: number(w, y)))(x),
    "jacrev(jacrev)": lambda w, x: jacrev(jacrev(lambda y: number(w, y)))(x),
    "linearize(grad)": lambda w, x: linearize(grad(lambda y: number(w, y)), x)[1](x),
    "vmap(grad)": lambda w, x: vmap(grad(lambda y: number(w, y)))(x * w[:, None]),
    "vmap(hessian)": lambda w, x: vmap(hessian(lambda y: number(w, y)))(x * w[:, None]),
    "grad(vmap(grad))": lambda w, x: grad(
        lambda z: vmap(grad(lambda y: number(w, y)))(z * w[:, None]).cos().sum()
    )(x),
    "vmap(grad(vmap(grad)))": lambda w, x: vmap(
        grad(lambda z: vmap(grad(lambda y: number(w, y)))(z * w[:, None]).cos().sum())
    )(x * w[:, None]),
    "vmap(jvp(vmap(grad)))": lambda w, x: vmap(
        lambda z: push(w, lambda y: vmap(grad(lambda y: number(w, y)))(y * w[:, None]), z)
    )(x * w[:, None]),
    "functionalize(grad)": lambda w, x: functionalize(grad(lambda y: written(w, y)))(x),
    "jvp(functionalize(grad))": lambda w, x: push(
        w, functionalize(grad(lambda y: written(w, y))), x
    ),
}

AROUND = {
    "grad": lambda f: grad(lambda w: f(w, X[0]))(W),
    "jacrev": lambda f: jacrev(lambda w: f(w, X[0]))(W),
    "grad(vmap)": lambda f: grad(lambda w: vmap(lambda x: f(w, x))(X).sum())(W),
    "vmap(grad)": lambda f: vmap(grad(lambda w, x: f(w, x)), in_dims=(None, 0))(W, X),
    "jvp(grad)": lambda f: jvp(grad(lambda w: f(w, X[0])), (W,), (W.exp(),))[1],
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("inside", INSIDE.values(), ids=INSIDE)
@pytest.mark.parametrize("early", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_same_as_without(inside, around, early):
    def kept(w, x):
        return inside(w, x).sin().sum()

    def recomputed(w, x):
        return checkpoint(lambda w, x: inside(w, x).sin(), w, x, use_reentrant=False).sum()

    with set_checkpoint_early_stop(early):
        assert_close(around(recomputed), around(kept))


def test_tangents_that_are_gone():
    """Arguments have theirs when it is computed again, other tensors don't."""

    def tangent(f):
        return lambda w: jvp(lambda x: f(w, x), (X[0],), (X[1],))[1]

    kept = tangent(lambda w, x: checkpoint(number, w, x, use_reentrant=False))
    assert_close(grad(kept)(W), grad(tangent(number))(W))
    gone = tangent(lambda w, x: checkpoint(lambda w: number(w, x), w, use_reentrant=False))
    with pytest.raises(CheckpointError, match="different number of tensors"):
        grad(gone)(W)


HOOKED = {
    "jvp": lambda t: jvp(lambda y: y**2, (t,), (torch.ones_like(t),))[1],
    "grad": lambda t: grad(lambda y: (y**2).sum())(t),
    "linearize": lambda t: linearize(lambda y: y**2, t)[1](torch.ones_like(t)),
    "vmap(grad)": lambda t: vmap(grad(lambda y: (y**2).sum()))(t),
    "functionalize(jvp)": functionalize(
        lambda t: jvp(lambda y: y**2, (t,), (torch.ones_like(t),))[1]
    ),
}


@pytest.mark.parametrize("transform", HOOKED.values(), ids=HOOKED)
@pytest.mark.parametrize("where", ["pack", "unpack"])
def test_in_hooks(transform, where):
    """A hook gets values of the plane that differentiates, and may differentiate them anew."""
    results = []
    busy = False

    def hook(tensor):
        nonlocal busy
        if not busy:
            busy = True
            results.append((tensor, transform(tensor)))
            busy = False
        return tensor

    hooks = (hook, lambda t: t) if where == "pack" else (lambda t: t, hook)

    def cubes(x):
        with saved_tensors_hooks(*hooks):
            return (x * x * x).sum()

    assert_close(grad(lambda x: vmap(cubes)(x).sum())(X), 3 * X**2)
    assert len(results) == 4
    for tensor, derivative in results:
        assert_close(derivative, 2 * tensor)


def derivatives(x):
    return grad(lambda y: (y**3).sum())(x) + jvp(lambda y: y**2, (x,), (torch.ones_like(x),))[1]


@torch.library.custom_op("functorch_ext_test::derivatives", mutates_args=())
def derivatives_op(x: torch.Tensor) -> torch.Tensor:
    return derivatives(x)


@derivatives_op.register_fake
def _(x):
    return torch.empty_like(x)


derivatives_op.register_autograd(
    lambda ctx, gradient: gradient * (6 * ctx.saved_tensors[0] + 2),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")
def test_in_an_operator():
    """Autograd has done its part when the implementation runs; which may differentiate by itself."""
    for around in (
        lambda f: f(X),
        lambda f: vmap(f)(X),
        lambda f: vmap(vmap(f))(X),
        lambda f: functionalize(f)(X),
        lambda f: grad(lambda x: f(x).sum())(X),
        lambda f: vmap(grad(lambda x: f(x).sum()))(X),
        lambda f: grad(lambda x: vmap(f)(x).sum())(X),
        lambda f: jvp(f, (X,), (X.sin(),)),
        lambda f: jvp(vmap(f), (X,), (X.sin(),)),
    ):
        assert_close(around(derivatives_op), around(derivatives))


def test_in_a_dispatch_mode():
    seen = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.sin.default:
                seen.append(derivatives(args[0]))
            return func(*args, **(kwargs or {}))

    with Mode():
        X.sin()
        vmap(torch.sin)(X)
        grad(lambda x: vmap(torch.sin)(x).sum())(X)
    for found in seen:
        assert_close(found, 3 * X**2 + 2 * X)
    assert len(seen) == 3
