"""Custom functions whose derivatives fill buffers that they make themselves."""

import pytest
import torch

from functorch_ext import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from test.oracle import assert_close, loop, rand

FILLED = {
    "zeros_like": lambda g: torch.zeros_like(g),
    "zeros": lambda g: torch.zeros(g.shape, dtype=g.dtype),
    "new_zeros": lambda g: g.new_zeros(g.shape),
    "made of one": lambda g: torch.ones(g.shape, dtype=g.dtype) * 0,
    "clone": lambda g: torch.zeros(3, dtype=g.dtype).clone(),
}


def doubled_head(make):
    """x with its first two numbers doubled; derivatives by buffers."""

    def fill(given):
        buffer = make(given)
        view = buffer[:2]
        view.copy_(2 * given[:2])
        buffer[2] = given[2]
        return buffer

    class DoubledHead(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x * torch.tensor([2.0, 2.0, 1.0], dtype=x.dtype)

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, cotangent):
            return fill(cotangent)

        @staticmethod
        def jvp(ctx, tangent):
            return fill(tangent)

    return DoubledHead.apply


FACTORS = torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64)

TRANSFORMS = {
    "jacrev": lambda f: jacrev(f),
    "jacrev by ones": lambda f: jacrev(f, chunk_size=1),
    "jacrev by twos": lambda f: jacrev(f, chunk_size=2),
    "jacfwd": lambda f: jacfwd(f),
    "jacfwd by twos": lambda f: jacfwd(f, chunk_size=2),
    "jvp": lambda f: lambda x: jvp(f, (x,), (x.cos(),)),
    "vjp": lambda f: lambda x: vjp(f, x)[1](x.cos()),
    "vmap(vjp)": lambda f: lambda x: vmap(vjp(f, x)[1])(torch.eye(3, dtype=x.dtype)),
    "jvp(jvp)": lambda f: lambda x: jvp(lambda x: jvp(f, (x,), (x.cos(),)), (x,), (x,)),
    "hessian": lambda f: hessian(lambda x: f(x).sin().sum()),
    "jacrev(jacrev)": lambda f: jacrev(jacrev(f)),
    "jacfwd(jacrev)": lambda f: jacfwd(jacrev(f)),
    "jacrev(jacfwd)": lambda f: jacrev(jacfwd(f)),
    "jacfwd(jacfwd)": lambda f: jacfwd(jacfwd(f)),
    "grad": lambda f: grad(lambda x: f(x).sum()),
}


@pytest.mark.parametrize("make", FILLED)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_alone(transform, make):
    x = rand(3)
    result = TRANSFORMS[transform](lambda x: doubled_head(FILLED[make])(x.sin()))(x)
    assert_close(result, TRANSFORMS[transform](lambda x: x.sin() * FACTORS)(x))


@pytest.mark.parametrize("make", FILLED)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_under_vmap(transform, make):
    x = rand(4, 3)
    result = vmap(TRANSFORMS[transform](lambda x: doubled_head(FILLED[make])(x.sin())))(x)
    assert_close(result, loop(TRANSFORMS[transform](lambda x: x.sin() * FACTORS))(x))


@pytest.mark.parametrize("make", FILLED)
def test_around_vmap(make):
    x = rand(4, 3)
    function = lambda x: doubled_head(FILLED[make])(x.sin())
    plain = lambda x: x.sin() * FACTORS
    assert_close(
        grad(lambda x: vmap(function)(x).sum())(x), grad(lambda x: vmap(plain)(x).sum())(x)
    )
    for transform in (jacrev, jacfwd):
        assert_close(transform(vmap(function))(x), transform(vmap(plain))(x))
