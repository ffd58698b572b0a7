"""Control flow under every transform and nesting: what a loop over plain Python computes."""

import pytest
import torch

import functorch_ext as ft
from test import oracle
from test.control_flow.programs import PROGRAMS

# Samples that take different ways, and at different times.
SLOW = pytest.mark.slow
DIMS = [(0, 0), pytest.param((0, None), marks=SLOW), pytest.param((None, 0), marks=SLOW)]


def _sum(function):
    return lambda *args: function(*args).sum()


# Each takes the function of two vectors and makes one of it, with ours and with the oracle.
TRANSFORMS = {
    "itself": (lambda f: f, lambda f: f),
    "grad": (lambda f: ft.grad(_sum(f)), lambda f: oracle.grad(_sum(f))),
    "grad by the second": (lambda f: ft.grad(_sum(f), 1), lambda f: oracle.grad(_sum(f), 1)),
    "vjp": (
        lambda f: lambda x, y: ft.vjp(lambda x: f(x, y), x)[1](y)[0],
        lambda f: lambda x, y: oracle.vjp(lambda x: f(x, y), x, y)[1],
    ),
    "jvp": (
        lambda f: lambda x, y: ft.jvp(lambda x: f(x, y), (x,), (y,)),
        lambda f: lambda x, y: oracle.jvp(lambda x: f(x, y), x, y),
    ),
    "jacrev": (lambda f: ft.jacrev(f), lambda f: oracle.jacobian(f)),
    "jacfwd": (lambda f: ft.jacfwd(f, 1), lambda f: oracle.jacobian(f, 1)),
    "hessian": (lambda f: ft.hessian(_sum(f)), lambda f: oracle.hessian(_sum(f))),
    "functionalize": (lambda f: ft.functionalize(f), lambda f: f),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("transform", list(TRANSFORMS)[1:])
@pytest.mark.parametrize("name", PROGRAMS)
def test_alone(name, transform):
    """A transform of the program, without a vmap."""
    ours, expected = TRANSFORMS[transform]
    program = PROGRAMS[name]
    for _ in range(3):
        x, y = oracle.rand(3), oracle.rand(3)
        oracle.assert_close(ours(program.with_operator)(x, y), expected(program.plain)(x, y))


@pytest.mark.parametrize("dims", DIMS, ids=str)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_inside_vmap(name, transform, dims):
    """Of each sample: either of the arguments may be the same for all."""
    ours, expected = TRANSFORMS[transform]
    program = PROGRAMS[name]
    x, y = (oracle.rand(3) if dim is None else oracle.rand(6, 3) for dim in dims)
    out_dims = (0, 0) if transform == "jvp" else 0
    oracle.assert_close(
        ft.vmap(ours(program.with_operator), dims)(x, y),
        oracle.loop(expected(program.plain), dims, out_dims)(x, y),
    )


@pytest.mark.parametrize("dims", DIMS, ids=str)
@pytest.mark.parametrize(
    "transform",
    [
        "grad",
        "grad by the second",
        pytest.param("hessian", marks=SLOW),
        pytest.param("functionalize", marks=SLOW),
    ],
)
@pytest.mark.parametrize("name", PROGRAMS)
def test_around_vmap(name, transform, dims):
    """The derivative flows through the choices between samples."""
    ours, expected = TRANSFORMS[transform]
    program = PROGRAMS[name]
    x, y = (oracle.rand(3) if dim is None else oracle.rand(4, 3) for dim in dims)
    oracle.assert_close(
        ours(ft.vmap(program.with_operator, dims))(x, y),
        expected(oracle.loop(program.plain, dims))(x, y),
    )


@pytest.mark.parametrize(
    "transform", ["itself", "grad", "jvp", pytest.param("hessian", marks=SLOW)]
)
@pytest.mark.parametrize("name", PROGRAMS)
def test_inside_nested_vmaps(name, transform):
    """The two vmaps map over different arguments."""
    ours, expected = TRANSFORMS[transform]
    program = PROGRAMS[name]
    x, y = oracle.rand(4, 3), oracle.rand(5, 3)
    out_dims = (0, 0) if transform == "jvp" else 0
    oracle.assert_close(
        ft.vmap(ft.vmap(ours(program.with_operator), (None, 0)), (0, None))(x, y),
        oracle.loop(oracle.loop(expected(program.plain), (None, 0), out_dims), (0, None), out_dims)(
            x, y
        ),
    )
