"""Large linear layers with weights of their own, one after the other on each thread.

The oracle is plain autograd for each member; sizes are those from which on layers take turns.
"""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import linear

from functorch_ext import grad, jacrev, jvp, vjp, vmap
from test.oracle import assert_close, loop, rand

MEMBERS, ROWS, INPUTS, OUTPUTS = 4, 1200, 40, 80


@pytest.fixture(autouse=True, params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def layer(x, weight, bias=None):
    return linear(x, weight, bias).sin().sum()


def plain_gradients(function, argnums):
    def gradients(*args):
        args = [x.detach().clone().requires_grad_() for x in args]
        return torch.autograd.grad(function(*args), [args[i] for i in argnums])

    return gradients


def arguments(in_dims, rows=(ROWS,), with_bias=True):
    sizes = [(*rows, INPUTS), (OUTPUTS, INPUTS), (OUTPUTS,)][: 2 + with_bias]
    return [
        rand(*(size if dim is None else (MEMBERS, *size)))
        for size, dim in zip(sizes, in_dims, strict=True)
    ]


def test_no_product_is_one_of_stacks():
    with torch.profiler.profile() as profile:
        vmap(grad(layer, (0, 1, 2)))(*arguments((0, 0, 0)))
    operators = {event.key for event in profile.key_averages()}
    assert "aten::linear" in operators
    assert not {"aten::baddbmm", "aten::bmm"} & operators


@pytest.mark.parametrize("rows", [(ROWS,), (4, ROWS // 4)])
@pytest.mark.parametrize("in_dims", [(0, 0, 0), (None, 0, 0), (0, 0, None), (0, 0), (None, 0)])
def test_gradients(in_dims, rows):
    args = arguments(in_dims, rows, with_bias=len(in_dims) == 3)
    assert_close(vmap(layer, in_dims)(*args), loop(layer, in_dims)(*args))
    for argnums in ((0,), (1,), (0, 1), *([(2,), (0, 2), (1, 2), (0, 1, 2)] * (len(args) == 3))):
        want = loop(plain_gradients(layer, argnums), in_dims)(*args)
        got = vmap(grad(layer, argnums), in_dims)(*args)
        assert_close(got, want)


def test_gradients_from_outside():
    """Members of a vmap inside, as stacks of plain tensors."""
    args = arguments((0, 0, 0))
    got = grad(lambda *args: vmap(layer)(*args).sum(), (0, 1, 2))(*args)
    assert_close(got, loop(plain_gradients(layer, (0, 1, 2)))(*args))
    leaves = [x.requires_grad_() for x in args]
    found = torch.autograd.grad(vmap(layer)(*leaves).sum(), leaves)
    assert_close(found, got)


def test_second_derivatives():
    args = arguments((0, 0, 0))

    def norm(*args):
        return sum(slope.sin().sum() for slope in grad(layer, (0, 1, 2))(*args))

    def plain_norm(*args):
        slopes = torch.autograd.grad(layer(*args), args, create_graph=True)
        return sum(slope.sin().sum() for slope in slopes)

    want = loop(plain_gradients(plain_norm, (0, 1, 2)))(*args)
    assert_close(vmap(grad(norm, (0, 1, 2)))(*args), want)
    assert_close(grad(lambda *args: vmap(norm)(*args).sum(), (0, 1, 2))(*args), want)

    # Tangents that flow through the backward pass.
    tangents = [x.cos() for x in args]

    def directional(*args):
        args, tangents = args[:3], args[3:]
        return jvp(grad(layer, (0, 1, 2)), args, tangents)[1]

    def plain_directional(*args):
        args = [x.clone().requires_grad_() for x in args[:3]]
        tangents = [x.detach().cos() for x in args]
        slopes = torch.autograd.grad(layer(*args), args, create_graph=True)
        total = sum((s * t).sum() for s, t in zip(slopes, tangents, strict=True))
        return torch.autograd.grad(total, args)

    assert_close(vmap(directional)(*args, *tangents), loop(plain_directional)(*args, *tangents))


def test_cotangents_of_a_basis_and_with_tangents():
    args = arguments((0, 0, 0))

    def sums(weight, x, bias):
        return linear(x, weight, bias).sin().sum(0)[:3]

    got = vmap(jacrev(sums))(args[1], args[0], args[2])

    def rows(x, weight, bias):
        return torch.stack(
            [
                plain_gradients(lambda *args, i=i: sums(args[1], args[0], args[2])[i], (1,))(
                    x, weight, bias
                )[0]
                for i in range(3)
            ]
        )

    assert_close(got, loop(rows)(*args))

    def pulled(cotangent, *args):
        return jvp(vjp(linear, *args)[1], (cotangent,), (cotangent.cos(),))

    def plainly(cotangent, *args):
        args = [x.clone().requires_grad_() for x in args]
        output = linear(*args)
        first = torch.autograd.grad(output, args, cotangent, retain_graph=True)
        return first, torch.autograd.grad(output, args, cotangent.cos())

    cotangent = rand(MEMBERS, ROWS, OUTPUTS)
    assert_close(vmap(pulled)(cotangent, *args), loop(plainly)(cotangent, *args))


def test_strides_dont_matter():
    x, weight, bias = arguments((0, 0, 0))
    args = x.mT.contiguous().mT, weight.mT.contiguous().mT, bias.mT.contiguous().mT
    want = loop(plain_gradients(layer, (0, 1, 2)))(*args)
    assert_close(vmap(grad(layer, (0, 1, 2)))(*args), want)
    moved = [x.movedim(0, -1) for x in args]
    assert_close(vmap(grad(layer, (0, 1, 2)), -1)(*moved), want)
    # A cotangent whose rows don't lie one after the other, as that of scores in front of places.
    args = arguments((0, 0, 0), (4, ROWS // 4))
    places = rand(OUTPUTS, ROWS // 4)
    weighted = lambda *args: (linear(*args).mT * places).sum()
    want = loop(plain_gradients(weighted, (0, 1, 2)))(*args)
    assert_close(vmap(grad(weighted, (0, 1, 2)))(*args), want)
    # A cotangent that lies in memory once.
    summed = lambda *args: linear(*args).sum()
    want = loop(plain_gradients(summed, (0, 1, 2)))(*args)
    assert_close(vmap(grad(summed, (0, 1, 2)))(*args), want)


def test_the_operators_of_a_trace_are_all_there():
    args = arguments((0, 0, 0))
    function = vmap(grad(layer, (0, 1, 2)))
    graph = make_fx(function)(*(torch.zeros_like(x) for x in args))
    assert_close(graph(*args), function(*args))


def test_autocast():
    args = [x.float() for x in arguments((0, 0, 0))]
    want = vmap(grad(layer, (0, 1, 2)))(*args)

    def gradients(*args):
        with torch.autocast("cpu", torch.bfloat16):
            return grad(layer, (0, 1, 2))(*args)

    for found, exact in zip(vmap(gradients)(*args), want, strict=True):
        assert found.dtype == torch.float32
        assert (found - exact).norm() < 0.1 * exact.norm()
