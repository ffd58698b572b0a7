"""Any nesting of vmap, reverse and forward mode gives the numbers of nested Python loops.

A nesting such as ("vmap", "grad", "jvp") is a program: each transform turns a function from tensors
of one shape to tensors of the same shape into another such function, so that every nesting is well
typed. A program is run twice, by functorch_ext and by a reference interpreter that knows Python
loops and plain reverse-mode autograd only.

Every transform hands a summary of its own input to what it transforms: the innermost body thereby
closes over a tensor of every outer plane. Every vmap also has an input that it does not map.
"""

import itertools
import random
import types

import pytest
import torch

import functorch_ext
from test import oracle
from test.oracle import assert_close, rand

FEATURES = 2
ALL = ("vmap", "grad", "vjp", "jvp", "jacrev", "jacfwd")


def body(x, closed_over):
    """The innermost function: mixes the features, and uses every closed-over tensor."""
    shift = sum(scale * other for scale, other in enumerate(closed_over, 1))
    return (x + shift).sin() * x.flip(-1) + 0.3 * x.prod() * (x * shift).cos()


def summary(x):
    """One feature vector made of all of x, to be closed over by inner functions."""
    return x.sin().reshape(-1, FEATURES).mean(0)


def weights(x):
    """Constants of the shape of x: a cotangent, a tangent or a way to sum an output."""
    return torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype).reshape(x.shape)


def contract(jacobian, x, side):
    """A Jacobian of shape x.shape + x.shape, summed over its outputs or its inputs."""
    square = jacobian.reshape(x.numel(), x.numel())
    w = weights(x).flatten()
    return (w @ square if side == "outputs" else square @ w).reshape(x.shape)


def functorch_transforms():
    def vjp(function, x, cotangent):
        output, pullback = functorch_ext.vjp(function, x)
        return output, pullback(cotangent)[0]

    return types.SimpleNamespace(
        vmap=functorch_ext.vmap,
        grad=functorch_ext.grad,
        vjp=vjp,
        jvp=lambda function, x, tangent: functorch_ext.jvp(function, (x,), (tangent,)),
        jacrev=functorch_ext.jacrev,
        jacfwd=functorch_ext.jacfwd,
    )


REFERENCE = types.SimpleNamespace(
    vmap=oracle.loop,
    grad=oracle.grad,
    vjp=oracle.vjp,
    jvp=oracle.jvp,
    jacrev=oracle.jacobian,
    jacfwd=oracle.jacobian,
)


def program(nesting, transforms, closed_over=()):
    """The function that `nesting` stands for, outermost transform first."""
    if not nesting:
        return lambda x: body(x, closed_over)
    name, inner = nesting[0], nesting[1:]

    def transformed(x):
        now_closed_over = (*closed_over, summary(x))

        def function(x):
            return program(inner, transforms, now_closed_over)(x)

        if name == "vmap":
            # every other vmap maps the last of its batch dimensions and puts it back there
            dim = 0 if inner.count("vmap") % 2 else -2

            def with_unbatched(x, unbatched):
                return program(inner, transforms, (*now_closed_over, unbatched))(x)

            mapped = transforms.vmap(with_unbatched, (dim, None), dim)
            return mapped(x, now_closed_over[0].cos())
        if name == "grad":
            return transforms.grad(lambda y: (weights(y) * function(y)).sum())(x)
        if name in ("vjp", "jvp"):
            output, derivative = getattr(transforms, name)(function, x, weights(x) * x)
            return output.sin() + derivative
        jacobian = getattr(transforms, name)(function)(x)
        return contract(jacobian, x, "outputs" if name == "jacrev" else "inputs")

    return transformed


def check(nesting):
    batch_sizes = [2, 3, 2, 2][: nesting.count("vmap")]
    x = 0.5 * rand(*batch_sizes, FEATURES)
    actual = program(nesting, functorch_transforms())(x)
    expected = program(nesting, REFERENCE)(x)
    assert not actual.requires_grad
    assert_close(actual, expected.detach(), message="(".join(nesting))


def nestings(names, depth):
    return ["-".join(nesting) for nesting in itertools.product(names, repeat=depth)]


@pytest.mark.parametrize("nesting", nestings(ALL, 1) + nestings(ALL, 2))
def test_depth_1_and_2(nesting):
    check(nesting.split("-"))


@pytest.mark.parametrize("nesting", nestings(("vmap", "grad", "jvp"), 3))
def test_depth_3(nesting):
    check(nesting.split("-"))


DEPTH_4 = nestings(ALL, 4)
NAMED = ["vmap-grad-vmap-jvp", "jvp-jvp-jvp-jvp", "grad-grad-grad-grad", "vmap-vmap-vmap-vmap"]


@pytest.mark.parametrize("nesting", sorted({*NAMED, *random.Random(4).sample(DEPTH_4, 40)}))
def test_depth_4_sample(nesting):
    check(nesting.split("-"))


@pytest.mark.slow
@pytest.mark.parametrize("nesting", DEPTH_4)
def test_depth_4(nesting):
    check(nesting.split("-"))


@pytest.mark.slow
@pytest.mark.parametrize("nesting", nestings(ALL, 3))
def test_depth_3_of_all(nesting):
    check(nesting.split("-"))


@pytest.mark.parametrize("nesting", ["vmap-grad", "jvp-vmap-grad", "grad-jvp", "jacfwd-jacrev"])
def test_the_reference_agrees_with_finite_differences(nesting):
    nesting = nesting.split("-")
    x = 0.5 * rand(*[2] * nesting.count("vmap"), FEATURES)
    function, step = program(nesting, REFERENCE), 1e-6
    direction = rand(*x.shape)
    ahead, behind = function(x + step * direction), function(x - step * direction)
    _, derivative = oracle.jvp(function, x, direction)
    assert_close(derivative.detach(), ((ahead - behind) / (2 * step)).detach(), tolerance=1e-6)


@pytest.mark.parametrize("outer", ["grad", "jvp"])
def test_the_check_can_fail(outer, monkeypatch):
    """A transform that forgets that closed-over tensors depend on its input is caught."""
    x = rand(FEATURES)
    right = program([outer, "grad"], REFERENCE)(x)
    monkeypatch.setitem(globals(), "summary", lambda x, summary=summary: summary(x.detach()))
    assert not torch.allclose(program([outer, "grad"], REFERENCE)(x), right)
