"""Transforms called where the thread isn't on the plane of their inputs: in a custom function's
backward or jvp, in a hook, in another thread. They differentiate on the plane of their inputs."""

import threading

import pytest
import torch
from torch.autograd import Function

from functorch_ext import (
    functionalize,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    vjp,
    vmap,
)
from test.oracle import assert_close, loop
from test.state import failure

X = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
XS = torch.stack([X, X * 0.5 - 1])
pytestmark = pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")


# Each is 2 * x * g, by a transform: of x, of g or of both.
DERIVATIVES = {
    "grad": lambda x, g: grad(lambda y: (y.square() * g).sum())(x),
    "grad by the cotangent": lambda x, g: grad(lambda h: (h.square() * x).sum())(g),
    "grad of both": lambda x, g: grad(lambda y, h: (y.square() * h).sum())(x, g),
    "grad argnums": lambda x, g: grad(lambda y, h: (y.square() * h).sum(), (0, 1))(x, g)[0],
    "vjp": lambda x, g: vjp(torch.square, x)[1](g)[0],
    "vjp over": lambda x, g: vjp(lambda y: y.square() * g, x)[1](torch.ones_like(x))[0],
    "jvp": lambda x, g: jvp(torch.square, (x,), (g,))[1],
    "jvp over": lambda x, g: jvp(lambda y: y.square() * g, (x,), (torch.ones_like(x),))[1],
    "jvp by the cotangent": lambda x, g: jvp(lambda h: h.square() * x, (g,), (torch.ones_like(g),))[
        1
    ],
    "linearize": lambda x, g: linearize(torch.square, x)[1](g),
    "jacrev": lambda x, g: jacrev(torch.square)(x) @ g,
    "jacrev over": lambda x, g: jacrev(lambda y: y.square() * g)(x).sum(0),
    "jacfwd": lambda x, g: jacfwd(torch.square)(x) @ g,
    "jacfwd over": lambda x, g: jacfwd(lambda y: y.square() * g)(x).sum(0),
    "hessian": lambda x, g: hessian(lambda y: (y.pow(3) * g / 3).sum())(x).sum(0),
    "torch.autograd": lambda x, g: by_torch(x, g),
}


def by_torch(x, g):
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        return torch.autograd.grad((y.square() * g.detach()).sum(), y)[0]


def square(derivative):
    """x**2 as a custom function with that derivative."""

    class Square(Function):
        @staticmethod
        def forward(x):
            return x**2

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, cotangent):
            return derivative(*ctx.saved_tensors, cotangent)

        @staticmethod
        def jvp(ctx, tangent):
            return derivative(*ctx.saved_tensors, tangent)

    return Square.apply


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_in_a_custom_function_under_a_jacobian(jacobian, name):
    func = square(DERIVATIVES[name])
    assert_close(jacobian(func)(X), torch.diag(2 * X))
    assert_close(vmap(jacobian(func))(XS), torch.diag_embed(2 * XS))


@pytest.mark.parametrize("name", DERIVATIVES)
def test_in_a_hook_under_jacrev(name):
    def func(x):
        y = x * 1
        y.register_hook(lambda cotangent: DERIVATIVES[name](x.detach(), cotangent))
        return y

    assert_close(jacrev(func)(X), torch.diag(2 * X))
    assert_close(vmap(jacrev(func))(XS), torch.diag_embed(2 * XS))


def in_thread(func, *args):
    outcome = []

    def work():
        try:
            outcome.append(func(*args))
        except Exception as error:  # for the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


@pytest.mark.parametrize("name", DERIVATIVES)
def test_in_a_thread_started_inside_vmap(name):
    func = lambda x: in_thread(DERIVATIVES[name], x, x.exp())
    assert_close(vmap(func)(XS), 2 * XS * XS.exp())


BATCHES = {
    "vmap": lambda x: vmap(lambda y, _: y * x, (None, 0))(x, torch.zeros(2, 1)).sum(0) / 2,
    "vmap of stack": lambda x: vmap(lambda y: y * x)(torch.stack([x, x])).sum(0) / 2,
    "vmap of grad": lambda x: vmap(grad(lambda y: (y * y * x).sum()))(torch.stack([x, x]))[1] / 2,
    "vmap in chunks": lambda x: vmap(lambda y: y * x, chunk_size=1)(torch.stack([x, x]))[1],
    "vmap of a dict": lambda x: vmap(lambda d: d["y"] * x, ({"y": 0},))({"y": x[None]})[0],
    "functionalize": lambda x: functionalize(lambda y: y.clone().mul_(x))(x),
    "jacfwd": lambda x: jacfwd(lambda y: y * y * x / 2, randomness="different")(x).sum(0),
}


@pytest.mark.parametrize("name", BATCHES)
def test_other_transforms_in_a_thread(name):
    func = lambda x: in_thread(BATCHES[name], x)
    expected = loop(lambda x: BATCHES[name](x))(XS)
    assert_close(vmap(func)(XS), expected)


HOOKS = {
    "node": lambda y, hook: y.grad_fn.register_hook(lambda _, by_output: (hook(*by_output),)),
    "before a node": lambda y, hook: y.grad_fn.register_prehook(lambda by: (hook(*by),)),
}


@pytest.mark.parametrize("name", HOOKS)
def test_in_hooks_of_nodes(name):
    def func(x):
        y = x.clone()
        HOOKS[name](y, lambda c: grad(lambda z: (z.square() * c).sum())(x.detach()))
        return y

    assert_close(jacrev(func)(X), torch.diag(2 * X))
    assert_close(vmap(grad(lambda x: func(x).sum()))(XS), 2 * XS)


class Stop(Exception):
    """Raised inside."""


def test_errors_leave_no_state():
    def stop(*_):
        raise Stop

    failing = square(lambda x, g: grad(stop)(x))
    failure(lambda: jacrev(failing)(X), Stop)
    failure(lambda: jacfwd(failing)(X), Stop)
    failure(lambda: vmap(jacrev(failing))(XS), Stop)
    failure(lambda: vmap(lambda x: in_thread(grad(stop), x))(XS), Stop)
    failure(lambda: vmap(lambda x: in_thread(lambda: jvp(stop, (x,), (x,))))(XS), Stop)


def test_a_function_in_a_thread_closes_over_the_samples():
    one = torch.ones_like(X)
    by_jvp = lambda x: in_thread(lambda: jvp(lambda y: y.square() * x, (one,), (one,))[1])
    assert_close(vmap(by_jvp)(XS), 2 * XS)
    by_grad = lambda x: in_thread(lambda: grad(lambda y: (y.square() * x).sum())(one))
    with pytest.raises(RuntimeError, match="closes over such a tensor: pass that as an argument"):
        vmap(by_grad)(XS)


def test_reentrant_backward_passes_that_change_threads():
    class Deep(Function):
        @staticmethod
        def forward(ctx, x, depth):
            ctx.save_for_backward(x)
            ctx.depth = depth
            return x.sin()

        @staticmethod
        def backward(ctx, cotangent):
            (x,) = ctx.saved_tensors
            if ctx.depth == 0:
                return grad(lambda y: (y.sin() * cotangent).sum())(x), None
            with torch.enable_grad():
                y = x.detach().requires_grad_()
                z = Deep.apply(y, ctx.depth - 1)
            return torch.autograd.grad(z, y, cotangent)[0], None

    # PyTorch moves every sixtieth of them to another thread.
    func = lambda x: Deep.apply(x, 70).sum()
    assert_close(vmap(grad(func))(XS), XS.cos())
    assert_close(jacrev(lambda x: Deep.apply(x, 70))(X), torch.diag(X.cos()))


def test_a_jvp_in_a_thread_keeps_its_tangents_apart():
    def func(x):
        return in_thread(lambda: jvp(lambda y: x * y.square(), (x,), (torch.ones_like(x),))[1])

    assert_close(jvp(func, (X,), (torch.ones_like(X),)), (2 * X.square(), 4 * X))


def test_random_numbers_in_a_transform_in_a_thread():
    def func(x):
        return in_thread(grad(lambda y: (y * torch.rand(3, dtype=y.dtype)).sum()), x)

    with pytest.raises(RuntimeError, match="randomness='error'"):
        vmap(func)(XS)
    same = vmap(func, randomness="same")(XS)
    assert_close(same[0], same[1])
    different = vmap(func, randomness="different")(XS)
    assert not torch.equal(different[0], different[1])
