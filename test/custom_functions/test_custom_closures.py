"""Custom functions that close over tensors of the vmap that they are applied in.

A derivative taken outside of the vmap applies them to whole batches, and runs their formulas when
the vmap has returned: those see what they close over as they did inside.
"""

import pytest
import torch
from torch.autograd import Function, functional

from functorch_ext import grad, jacfwd, jacrev, jvp, vjp, vmap
from test.custom_functions.functions import Adjoint
from test.oracle import assert_close, loop, rand

XS, WS = rand(4, 3), rand(4, 3)


def scaled(w, keep=False):
    """x * w, whose formulas know w from a closure, or from ctx."""

    class Scaled(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.w = w if keep else None
            ctx.save_for_backward(x)
            return x.sin() if keep else x.sin() * w

        @staticmethod
        def backward(ctx, cotangent):
            (x,) = ctx.saved_tensors
            return cotangent * x.cos() * (ctx.w if keep else w)

        @staticmethod
        def jvp(ctx, tangent):
            return tangent * (ctx.w if keep else w)  # not quite: one sees that it is used

    return Scaled


def applied(x, w):
    return scaled(w).apply(x).sum()


def expected(xs, ws):
    return xs.cos() * ws


def summed(function):
    return lambda *args: function(*args).sum()


@pytest.mark.parametrize("keep", [False, True])
def test_gradients_from_outside(keep):
    function = lambda x, w: scaled(w, keep).apply(x).sum()
    assert_close(grad(summed(vmap(function)))(XS, WS), expected(XS, WS))
    assert_close(grad(summed(vmap(function, (1, 1))))(XS.T, WS.T), expected(XS, WS).T)
    assert_close(grad(summed(vmap(function, chunk_size=3)))(XS, WS), expected(XS, WS))
    assert_close(grad(summed(vmap(function, (0, None))))(XS, WS[0]), expected(XS, WS[0]))
    shared = grad(summed(vmap(function, (None, 0))))(XS[0], WS)
    assert_close(shared, sum(expected(XS[0], w) for w in WS))
    inner = vmap(function, (None, 0))
    both = grad(summed(vmap(inner, (0, None))))(XS, WS)
    assert_close(both, sum(expected(XS, w) for w in WS))
    assert_close(vmap(grad(function))(XS, WS), expected(XS, WS))
    assert_close(vjp(vmap(function), XS, WS)[1](torch.ones(4).double())[0], expected(XS, WS))


def test_of_an_outer_vmap():
    """The inner vmap closes over what the outer one maps."""

    def function(x, w):
        return vmap(lambda each: scaled(w[0] * each).apply(x).sum())(w).sum()

    got = grad(summed(vmap(function)))(XS, WS)
    plain = lambda x, w: sum((x.sin() * w[0] * each).sum() for each in w)
    assert_close(got, torch.stack([functional.jacobian(plain, (x, w))[0] for x, w in zip(XS, WS)]))


def test_rows_of_a_jacobian():
    whole = jacrev(vmap(applied))(XS, WS)
    rows = torch.stack([whole[i, i] for i in range(4)])
    assert_close(rows, expected(XS, WS))


def test_tangents_from_outside():
    _, tangent = jvp(lambda xs: vmap(applied)(xs, WS), (XS,), (XS,))
    assert_close(tangent, (XS * WS).sum(1))
    _, of_shared = jvp(lambda x: vmap(lambda w: applied(x, w))(WS), (XS[0],), (XS[0],))
    assert_close(of_shared, WS @ XS[0])
    columns = jacfwd(lambda xs: vmap(applied)(xs, WS))(XS)
    assert_close(torch.stack([columns[i, i] for i in range(4)]), WS)


class OfSaved(Adjoint):
    """The same of a function that is given the parameters."""

    @staticmethod
    def forward(ctx, func, x, *parameters):
        ctx.func = func
        ctx.save_for_backward(x, *parameters)
        return func(x, *parameters)

    @staticmethod
    def backward(ctx, cotangent):
        x, *parameters = ctx.saved_tensors
        with torch.enable_grad():
            y = ctx.func(x, *parameters)
            # Two passes: the graph of the planes below is kept, too.
            by_first = torch.autograd.grad(y, parameters[0], cotangent, retain_graph=True)
            x = x.detach().requires_grad_()
            y = ctx.func(x, *parameters)
            by_x, *rest = torch.autograd.grad(y, (x, *parameters[1:]), cotangent)
        return None, by_x, *by_first, *rest


def of_closure(x, w, v):
    # As a library does that looks for parameters to train.
    known = [each for each in (w, v) if each.requires_grad]
    return Adjoint.apply(lambda x: torch.tanh(x * w) * v, x, *known).square().sum()


def of_saved(x, w, v):
    return OfSaved.apply(lambda x, w, v: torch.tanh(x * w) * v, x, w, v).square().sum()


def plain(x, w, v):
    return (torch.tanh(x * w) * v).square().sum()


@pytest.mark.parametrize("function", [of_closure, of_saved])
@pytest.mark.parametrize("dims", [(0, 0, 0), (None, 0, 0), (0, 0, None), (0, None, None)])
@pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")
def test_backward_that_differentiates_by_parameters(function, dims):
    args = tuple(rand(3) if dim is None else rand(4, 3) for dim in dims)
    by = (0, 1, 2)
    want = functional.jacobian(lambda *args: loop(plain, dims)(*args).sum(), args)
    assert_close(grad(lambda *args: vmap(function, dims)(*args).sum(), by)(*args), want)
    wide = loop(lambda *args: functional.jacobian(plain, args), dims)(*args)
    assert_close(vmap(grad(function, by), dims)(*args), wide)


def test_parameters_of_two_vmaps():
    ws, vs = rand(2, 3), rand(4, 3)
    function = vmap(vmap(of_closure, (None, None, 0)), (0, 0, None))
    xs = rand(2, 3)
    pairs = loop(loop(plain, (None, None, 0)), (0, 0, None))
    want = functional.jacobian(lambda *args: pairs(*args).sum(), (xs, ws, vs))
    found = grad(lambda *args: function(*args).sum(), (0, 1, 2))(xs, ws, vs)
    assert_close(found, want)


def test_gradients_that_nothing_known_explains():
    """The backward alone knows of samples, so that one gradient stands for all outputs."""

    def function(x, w):
        class Closing(Function):
            @staticmethod
            def forward(ctx, x):
                return x.sin()

            @staticmethod
            def backward(ctx, cotangent):
                return cotangent * w

        return (Closing.apply(x) * w).sum()

    with pytest.raises(RuntimeError, match=r"Closing.backward returns differ between samples, but"):
        grad(lambda x: vmap(function, (None, 0))(x, WS).sum())(XS[0])
