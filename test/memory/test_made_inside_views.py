"""Memory made inside vmap, seen through views of other kinds, resized, or given as out=."""

import pytest
import torch

from functorch_ext import grad, jacrev, jvp, vmap
from test.oracle import assert_close, loop, rand

COMPLEX = torch.complex128

# how memory is made, and a view of it
VIEWS = {
    "another dtype": (lambda: torch.zeros(4, dtype=torch.double), lambda o: o.view(torch.int64)),
    "a smaller one": (lambda: torch.zeros(4, dtype=torch.double), lambda o: o.view(torch.int16)),
    "a larger one": (lambda: torch.zeros(5, 4), lambda o: o.view(torch.int64)),
    "a larger one of a part": (lambda: torch.zeros(3, 2)[1:], lambda o: o.view(torch.int64)),
    "bytes of bytes": (
        lambda: torch.zeros(6, dtype=torch.uint8),
        lambda o: o[2:].view(torch.int16),
    ),
    "conj": (lambda: torch.zeros(3, dtype=COMPLEX), lambda o: o.conj()),
    "mH": (lambda: torch.zeros(3, 3, dtype=COMPLEX), lambda o: o.mH),
    "real": (lambda: torch.zeros(3, dtype=COMPLEX), lambda o: o.real),
    "imag": (lambda: torch.zeros(3, dtype=COMPLEX), lambda o: o.imag),
    "imag of conj": (lambda: torch.zeros(3, dtype=COMPLEX), lambda o: o.conj()[1:].imag),
    "view_as_real": (lambda: torch.zeros(3, dtype=COMPLEX), torch.view_as_real),
    "view_as_complex": (lambda: torch.zeros(3, 2, dtype=torch.double), torch.view_as_complex),
    "negated": (lambda: torch.zeros(3, dtype=torch.double), torch._neg_view),
    "strided": (lambda: torch.zeros(6, dtype=COMPLEX)[::2], lambda o: o.real[1:]),
    "transposed": (lambda: torch.zeros(2, 3, dtype=COMPLEX).t(), lambda o: o.imag),
}


def through_the_base(base, view, x):
    base[0] = x.to(base.dtype)


def after_a_constant(base, view, x):
    view[-1] = 1
    base[0] = x.to(base.dtype)


def through_the_view(base, view, x):
    view[0] = x.to(view.dtype) if view.is_complex() or not x.is_complex() else x.real.to(view.dtype)


@pytest.mark.parametrize("write", [through_the_base, after_a_constant, through_the_view])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("nested", [False, True])
def test_views_see_writes(view, write, nested):
    make, view_of = VIEWS[view]

    def function(x):
        base = make()
        seen = view_of(base)
        write(base, seen, x)
        return base.clone(), seen.clone(), (seen * 1).resolve_conj()

    x = torch.arange(1, 7).reshape(3, 2) if nested else torch.arange(1, 4)
    x = x + 1j * x if make().is_complex() else x
    if nested:
        assert_close(vmap(vmap(function))(x), loop(loop(function))(x))
    else:
        assert_close(vmap(function)(x), loop(function)(x))


def into_real_parts(x):
    out = torch.zeros(3, dtype=COMPLEX)
    real, imag = out.real, torch.view_as_real(out)[..., 1]
    real.copy_(x)
    imag[1:] = x[:2] ** 2
    return torch.view_as_real(out * out.conj() + out).sum(-1)


def into_complex_numbers(x):
    out = torch.zeros(3, 2, dtype=x.dtype)
    numbers = torch.view_as_complex(out)
    out[:, 0] = x
    out[1:, 1] = x[:2] ** 2
    return torch.view_as_real(numbers * numbers).sum(1)


@pytest.mark.parametrize("function", [into_real_parts, into_complex_numbers])
def test_derivatives_go_through_them(function):
    x = rand(4, 3)
    expected = loop(lambda x: torch.autograd.functional.jacobian(function, x))(x)
    assert_close(vmap(jacrev(function))(x), expected)
    t = x.cos()
    by_jvp = vmap(lambda x, t: jvp(function, (x,), (t,))[1])(x, t)
    assert_close(by_jvp, torch.einsum("bij,bj->bi", expected, t))
    around = grad(lambda x: vmap(function)(x).sum())(x)
    assert_close(around, expected.sum(1))


@pytest.mark.parametrize("keep", [False, True])
def test_views_of_an_expanded_tangent(keep):
    def function(x):
        def inner(u):
            u = u * 1
            kept = u[0]
            if not keep:
                del kept
            return u.mul_(x)

        return jvp(inner, (torch.ones(3, dtype=x.dtype),), (TANGENT.expand(3),))[1]

    x = rand(4, 3)
    assert_close(vmap(function)(x), 2 * x)


TANGENT = torch.full((), 2.0, dtype=torch.float64)


def test_resize():
    def function(x):
        out = torch.zeros(3, dtype=x.dtype)
        part = out[:2]
        out.resize_(2, 4).zero_()
        assert out.shape == (2, 4)
        out[0] = x
        return out.clone(), part.clone()

    x = rand(3, 4)
    assert_close(vmap(function)(x), loop(function)(x))


def test_a_view_that_outgrows_it():
    def function(x):
        out = torch.ones(3, dtype=x.dtype)
        part = out[:2]
        part.resize_(5)
        part[3:] = 2.0
        part[4] = x
        return out.clone(), part.clone()

    x = rand(3)
    assert_close(vmap(function)(x), loop(function)(x))


def by_add(x, out):
    return torch.add(x, 1, out=out)


def by_product(x, out):
    return torch.mm(x, x.T, out=out)


def by_stack(x, out):
    return torch.stack([x, x * 2], out=out)


def by_sum(x, out):
    return torch.sum(x, 0, out=out)


OUT_SHAPES = {by_add: (3, 2), by_product: (3, 3), by_stack: (2, 3, 2), by_sum: (2,)}


@pytest.mark.parametrize("function", OUT_SHAPES, ids=lambda function: function.__name__)
@pytest.mark.filterwarnings("error")
def test_out(function):
    shape = OUT_SHAPES[function]

    def into_empty(x):
        out = torch.empty(0, dtype=x.dtype)
        result = function(x, out)
        assert result is out and out.shape == shape
        return out * 2

    def into_made(x):
        out = torch.zeros(shape, dtype=x.dtype)
        view = out[0]
        function(x, out)
        return out, view.clone()

    def into_batched(x):
        out = x.new_empty(shape)
        return function(x, out)

    x = rand(4, 3, 2)
    for each in (into_empty, into_made, into_batched):
        assert_close(vmap(each)(x), loop(each)(x))
        assert_close(vmap(vmap(each))(x.expand(2, 4, 3, 2)), loop(loop(each))(x.expand(2, 4, 3, 2)))


def test_several_outs():
    def function(x):
        values, indices = torch.empty(0, dtype=x.dtype), torch.empty(0, dtype=torch.long)
        torch.max(x, 0, out=(values, indices))
        return values, indices

    x = rand(4, 3, 2)
    assert_close(vmap(function)(x), loop(function)(x))


def test_out_of_another_dtype():
    def function(x, dtype):
        return torch.add(x, 1, out=torch.empty(3, dtype=dtype))

    x = rand(4, 3)
    expected = loop(lambda x: function(x, torch.float32))(x)
    assert_close(vmap(lambda x: function(x, torch.float32))(x), expected)
    with pytest.raises(RuntimeError, match="can't be cast to the desired output type Long"):
        vmap(lambda x: function(x, torch.long))(x)


def test_out_from_outside():
    outside = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="into a tensor from outside"):
        vmap(lambda x: torch.add(x, 1, out=outside))(rand(4, 3))
    assert not outside.any()
