"""Formulas of custom functions that fill a buffer: memory made in them is theirs on every plane."""

import pytest
import torch

from functorch_ext import grad, hessian, jacfwd, jacrev, vjp, vmap
from test.oracle import assert_close, rand


def _plain(x):
    return x[:2].sin() * x[2]


def _gradient(x, cotangent):
    """The parts of the gradient, and how many of them there are."""
    return cotangent * x[:2].cos() * x[2], (cotangent * x[:2].sin()).sum()


def _with_zeros_like(x, first, last):
    r = torch.zeros_like(x)
    r[:2] = first
    r[2] = last
    return r


def _with_new_zeros(x, first, last):
    r = x.new_zeros(x.shape)
    r[:2].copy_(first)
    r[2:3].add_(last)
    return r


def _with_zeros(x, first, last):
    r = torch.zeros(x.shape, dtype=x.dtype)
    r[:2] += first
    r.select(0, 2).copy_(last)
    return r


def _with_empty_like(x, first, last):
    r = torch.empty_like(x).zero_()
    r.narrow(0, 0, 2).copy_(first)
    r[2] = last
    return r


def _with_full(x, first, last):
    r = torch.full_like(x, 2.0)
    r -= 2
    r.view(-1)[:2] = first
    r[2].fill_(last)
    return r


FILLS = (_with_zeros_like, _with_new_zeros, _with_zeros, _with_empty_like, _with_full)


def _function(fill, in_forward):
    class Filled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            if not in_forward:
                return _plain(x)
            y = torch.zeros_like(x)
            y[:2] = x[:2].sin() * x[2]
            return y[:2].clone()

        @staticmethod
        def backward(ctx, cotangent):
            (x,) = ctx.saved_tensors
            return fill(x, *_gradient(x, cotangent))

    return Filled.apply


def _number(func):
    return lambda x: (func(x) ** 2).sum()


CALLS = {
    "jacrev": lambda f, x: jacrev(f)(x[0]),
    "jacrev, one row at a time": lambda f, x: jacrev(f, chunk_size=1)(x[0]),
    "vmap(jacrev)": lambda f, x: vmap(jacrev(f))(x),
    "vmap(jacrev), in chunks": lambda f, x: vmap(jacrev(f, chunk_size=1), chunk_size=2)(x),
    "jacrev(vmap)": lambda f, x: jacrev(vmap(f))(x),
    "jacrev(vmap), in chunks": lambda f, x: jacrev(vmap(f, chunk_size=2), chunk_size=3)(x),
    "grad(vmap)": lambda f, x: grad(lambda x: (vmap(f)(x) ** 2).sum())(x),
    "vmap(grad)": lambda f, x: vmap(grad(_number(f)))(x),
    "vmap(vmap(grad))": lambda f, x: vmap(vmap(grad(_number(f))))(x[:2].expand(2, 2, 4)),
    "vmap(jacrev(vmap))": lambda f, x: vmap(jacrev(vmap(f)))(torch.stack([x, x.sin()])),
    "jacfwd": lambda f, x: jacfwd(f)(x[0]),
    "hessian": lambda f, x: hessian(_number(f))(x[0]),
    "vmap(hessian)": lambda f, x: vmap(hessian(_number(f)))(x),
    "vmap over cotangents": lambda f, x: vmap(lambda c: vjp(f, x[0])[1](c)[0])(x[:2, :2]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("in_forward", [False, True])
@pytest.mark.parametrize("fill", FILLS)
def test_filled_in_a_formula(fill, in_forward, call):
    x = rand(3, 4)
    assert_close(call(_function(fill, in_forward), x), call(_plain, x))


@pytest.mark.parametrize("fill", FILLS)
def test_filled_in_an_inner_vmap(fill):
    """The buffer is made like what the inner vmap maps, and filled with what both do."""
    x, y = rand(3, 4), rand(2, 4)
    func = lambda x, y: fill(x, (x * y)[:2], y.sum())
    expected = torch.stack([torch.stack([func(a, b) for a in x]) for b in y])
    assert_close(vmap(lambda b: vmap(lambda a: func(a, b))(x))(y), expected)


class _Solve(torch.autograd.Function):
    """Euler's method for y' = a * sin(y), differentiated by the adjoint equation."""

    STEPS, STEP = 5, 0.1

    @staticmethod
    def forward(ctx, y, a):
        path = torch.empty(_Solve.STEPS + 1, *y.shape, dtype=y.dtype)
        path[0] = y
        for i in range(_Solve.STEPS):
            path[i + 1] = path[i] + _Solve.STEP * a * path[i].sin()
        ctx.save_for_backward(path, a)
        return path[-1].clone()

    @staticmethod
    def backward(ctx, cotangent):
        path, a = ctx.saved_tensors
        state = torch.zeros(2, *cotangent.shape, dtype=cotangent.dtype)
        state[0] = cotangent
        for i in reversed(range(_Solve.STEPS)):
            state[1] += _Solve.STEP * state[0] * path[i].sin()
            state[0] += _Solve.STEP * state[0] * a * path[i].cos()
        return state[0].clone(), state[1].clone()


def _solved(y, a):
    for _ in range(_Solve.STEPS):
        y = y + _Solve.STEP * a * y.sin()
    return y


SOLVED = {
    "jacrev": lambda f, y, a: jacrev(f, argnums=(0, 1))(y[0], a[0]),
    "jacrev, in chunks": lambda f, y, a: jacrev(f, argnums=(0, 1), chunk_size=2)(y[0], a[0]),
    "vmap(jacrev)": lambda f, y, a: vmap(jacrev(f, argnums=(0, 1)))(y, a),
    "vmap(grad)": lambda f, y, a: vmap(grad(lambda y, a: f(y, a).sum(), argnums=(0, 1)))(y, a),
    "grad(vmap)": lambda f, y, a: grad(lambda y, a: vmap(f)(y, a).sum(), argnums=(0, 1))(y, a),
    "jacrev(vmap)": lambda f, y, a: jacrev(vmap(f), argnums=(0, 1))(y, a),
    "shared start": lambda f, y, a: vmap(jacrev(f, argnums=(0, 1)), (None, 0))(y[0], a),
}


@pytest.mark.parametrize("call", SOLVED.values(), ids=SOLVED.keys())
def test_adjoint_of_a_differential_equation(call):
    y, a = rand(2, 3), rand(2, 3)
    assert_close(call(_Solve.apply, y, a), call(_solved, y, a))
