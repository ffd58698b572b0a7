"""Weight norm, whose norms PyTorch takes for constants where its derivative is differentiated."""

import pytest
import torch

from functorch_ext import grad, jacfwd, jacrev, vmap
from test.oracle import assert_close, rand

SHAPES = {0: (3, 1), 1: (1, 4)}


def of_parts(v, g, dim):
    return v * (g / v.norm(2, 1 - dim, keepdim=True))


def cubes(weight_norm, dim):
    return lambda v, g: weight_norm(v, g, dim).pow(3).sum()


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("argnum", [0, 1])
def test_higher_derivatives(dim, argnum):
    v, g = rand(3, 4), rand(*SHAPES[dim]).abs() + 0.5
    second = lambda f: jacrev(jacrev(f, argnum), argnum)(v, g)
    expected = second(cubes(of_parts, dim))
    assert_close(second(cubes(torch._weight_norm, dim)), expected)
    assert_close(jacfwd(jacrev(cubes(torch._weight_norm, dim), argnum), argnum)(v, g), expected)

    def third(f):
        slope = lambda v, g: grad(f, argnum)(v, g).pow(2).sum()
        curvature = lambda v, g: grad(slope, argnum)(v, g).pow(2).sum()
        return grad(curvature, argnum)

    of_samples = vmap(third(cubes(torch._weight_norm, dim)))
    vs, gs = rand(2, 3, 4), rand(2, *SHAPES[dim]).abs() + 0.5
    assert_close(of_samples(vs, gs), vmap(third(cubes(of_parts, dim)))(vs, gs))
