"""Kernels and forms for gradients of each sample: layer norms' in one pass, products in parts."""

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import layer_norm, linear

from functorch_ext import grad, hessian, vmap
from test.oracle import assert_close, loop


def _plain(function, count):
    """The gradients by the first arguments, of plain autograd."""

    def gradients(*args):
        leaves = [x.detach().clone().requires_grad_() for x in args[:count]]
        return torch.autograd.grad(function(*leaves, *args[count:]), leaves)

    return gradients


def _norm_loss(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return layer_norm(x, weight.shape, weight, bias).sin().sum()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("in_dims", [(0, None, None), (0, 0, 0), (0, 0, None), (0, None, 0)])
@pytest.mark.parametrize(
    ("rows", "shape"), [((), (5,)), ((4,), (16,)), ((2, 3), (37,)), ((3,), (2, 9)), ((0,), (4,))]
)
def test_layer_norm(rows, shape, in_dims, dtype):
    torch.manual_seed(0)
    batches = [(3,) if dim == 0 else () for dim in in_dims]
    sizes = [rows + shape, shape, shape]
    args = [torch.randn(b + s, dtype=dtype) for b, s in zip(batches, sizes, strict=True)]
    want = loop(_plain(_norm_loss, 3), in_dims)(*(x.double() for x in args))
    found = vmap(grad(_norm_loss, (0, 1, 2)), in_dims)(*args)
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4}[dtype]
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("affine", ["weight", "bias", "neither"])
def test_layer_norm_without_some_of_its_weights(affine):
    x, given = torch.randn(3, 4, 18).double(), torch.randn(18).double()

    def loss(given, x):
        weights = {affine: given} if affine != "neither" else {}
        return (layer_norm(x + given, (18,), **weights) * x.cos()).sum()

    want = loop(_plain(loss, 2), (None, 0))(given, x)
    assert_close(vmap(grad(loss, (0, 1)), (None, 0))(given, x), want)


def test_layer_norm_of_memory_in_another_order():
    x = torch.randn(4, 20, 3).double().permute(2, 0, 1)
    weight, bias = torch.randn(2, 20).double()
    in_dims = (0, None, None)
    want = loop(_plain(_norm_loss, 3), in_dims)(x, weight, bias)
    assert_close(vmap(grad(_norm_loss, (0, 1, 2)), in_dims)(x, weight, bias), want)
    x = x.movedim(0, 2)
    assert_close(vmap(grad(_norm_loss, (0, 1, 2)), (2, None, None))(x, weight, bias), want)


def test_layer_norm_refuses_a_weight_of_another_size():
    x, statistics = torch.randn(3, 4, 18), torch.randn(3, 4, 1)
    backward = torch.ops.aten.native_layer_norm_backward
    for weight in (torch.randn(9), torch.randn(1, 18)):
        arguments = weight, None, (True, True, True)
        with pytest.raises(RuntimeError):
            vmap(lambda x, s, w=arguments: backward(x, x, (18,), s, s, *w))(x, statistics)


def test_who_records_layer_norm_sees_operators():
    x, weight, bias = torch.randn(3, 4, 18), torch.randn(18), torch.randn(18)
    gradients = vmap(grad(_norm_loss, (0, 1, 2)), (0, None, None))
    graph = make_fx(gradients)(x, weight, bias)
    x, weight = x.cos(), weight + 1
    torch.testing.assert_close(graph(x, weight, bias), gradients(x, weight, bias))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(3, 300, 130), (7, 700, 220), (5, 600, 900), (40, 90, 50), (200, 300, 200)],
)
def test_products_that_are_larger_than_the_cache(rows, inputs, outputs, threads):
    """Several samples at a time, one, and some rows of one."""
    x = torch.randn(9, rows, inputs).double()
    weight = torch.randn(outputs, inputs).double()

    def loss(weight, x):
        return linear(x, weight).sin().sum()

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = vmap(grad(loss), (None, 0))(weight, x)
    finally:
        torch.set_num_threads(before)
    assert_close(found, torch.einsum("boc,boi->bci", linear(x, weight).cos(), x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("exponent", [2, -1, 0.5, 3.0, True, 1j])
def test_powers_of_large_tensors(exponent, dtype):
    x = torch.rand(3, 700, 600).add_(0.5).to(dtype)
    try:
        expected = x**exponent
    except NotImplementedError:  # complex bfloat16, which PyTorch has from 2.14 on
        pytest.skip("PyTorch itself has no such power")
    for axis in (0, 2):
        found = vmap(lambda x: x**exponent, axis, axis)(x)
        torch.testing.assert_close(found, expected)
    assert found.dtype == expected.dtype


@pytest.mark.parametrize("has_bias", [False, True])
def test_derivatives_of_weights_gradients(has_bias):
    """By inputs and by weights of each member's own, which lie in memory as those do."""
    x, weight = torch.randn(3, 6, 4).double(), torch.randn(3, 5, 4).double()
    bias = torch.randn(5).double() if has_bias else None

    def slope(weight, x):
        return grad(lambda weight: linear(x, weight, bias).sin().sum())(weight).cos().sum()

    def plain_slope(weight, x):
        leaf = weight.requires_grad_()
        loss = linear(x, leaf, bias).sin().sum()
        return torch.autograd.grad(loss, leaf, create_graph=True)[0].cos().sum()

    found = grad(lambda *args: vmap(slope)(*args).sum(), (0, 1))(weight, x)
    assert_close(found, loop(_plain(plain_slope, 2))(weight, x))
    assert all(gradient.is_contiguous() for gradient in found)
    curvature = hessian(lambda x: vmap(slope)(weight, x).sum())(x)
    plain = torch.autograd.functional.hessian(
        lambda x: sum(plain_slope(*each) for each in zip(weight.clone(), x, strict=True)), x
    )
    assert_close(curvature, plain)
