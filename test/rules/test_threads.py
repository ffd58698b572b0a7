"""Kernels of our own on all of PyTorch's threads: the same numbers, computed by each thread."""

import sys
import time

import pytest
import torch
from torch.nn.functional import conv2d, layer_norm, max_pool2d

from functorch_ext import grad, vmap
from test.oracle import assert_close


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def of_layer_norm(x, weight, bias):
    return layer_norm(x, weight.shape, weight, bias).sin().sum()


def shares_of(function):
    """The processor time of this thread and of all others, for about a fifth of a second."""
    resource = pytest.importorskip("resource")

    def used(who):
        usage = resource.getrusage(who)
        return usage.ru_utime + usage.ru_stime

    function()
    time.sleep(0.1)  # threads that wait for more work do so at full speed for a moment
    start = used(resource.RUSAGE_SELF), used(resource.RUSAGE_THREAD)
    while used(resource.RUSAGE_THREAD) - start[1] < 0.2:
        function()
    own = used(resource.RUSAGE_THREAD) - start[1]
    return own, used(resource.RUSAGE_SELF) - start[0] - own


@pytest.mark.skipif(sys.platform != "linux", reason="counts the time of threads as Linux does")
@pytest.mark.skipif(not torch.backends.openmp.is_available(), reason="PyTorch shares nothing out")
@pytest.mark.parametrize("kernel", ["layer norm", "maximum"])
def test_threads_share_the_work(kernel):
    x, weight = torch.randn(256, 512, 32), torch.randn(32)
    of_rows = torch.zeros(256, 512, 1), torch.ones(256, 512, 1)
    images = torch.randn(64, 1, 16, 16, 16)
    backward = torch.ops.aten.native_layer_norm_backward
    # Nothing but the kernel is large enough to be shared out.
    gradients = vmap(lambda x, m, r: backward(x, x, (32,), m, r, weight, weight, (True,) * 3))
    function = {
        "layer norm": lambda: gradients(x, *of_rows),
        "maximum": lambda: vmap(lambda x: max_pool2d(x, 2))(images),
    }[kernel]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        own, others = shares_of(function)
        assert others < 0.05 * own
        torch.set_num_threads(2)
        own, others = shares_of(function)
        assert others > 0.3 * own
    finally:
        torch.set_num_threads(before)


# As many samples as threads, fewer, more, and a number that keeps one thread idle in the end.
@pytest.mark.parametrize("samples", [1, 2, 3, 5, 16])
@pytest.mark.parametrize(
    ("channels", "size"), [((8, 16), 4), ((5, 7), 9), ((300, 320), 4), ((40, 96), 7)]
)
def test_weights_of_convolutions(samples, channels, size, threads):
    inputs, outputs = channels
    weight = torch.randn(outputs, inputs, 3, 3, dtype=torch.double) / inputs
    x = torch.randn(samples, 1, inputs, size, size, dtype=torch.double)

    def loss(weight, x):
        return conv2d(x, weight, padding=1).sin().sum()

    found = vmap(grad(loss), (None, 0))(weight, x)
    leaf = weight.clone().requires_grad_()
    assert_close(found, torch.stack([torch.autograd.grad(loss(leaf, y), leaf)[0] for y in x]))


@pytest.mark.parametrize("samples", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("sizes", [(3, 500, 450), (16, 900, 700), (130, 300, 500), (2, 90, 80)])
def test_stacks_of_products(samples, sizes, threads):
    factors, rows, columns = sizes
    left = torch.randn(samples, rows, factors, dtype=torch.double)
    right = torch.randn(samples, factors, columns, dtype=torch.double)
    assert_close(vmap(torch.mm)(left, right), torch.stack(list(map(torch.mm, left, right))))


def test_recorded_by_autograd_around(threads):
    """A thread's own state doesn't know that these products are below autograd already."""
    left = torch.randn(8, 300, 4, dtype=torch.double, requires_grad=True)
    right = torch.randn(8, 4, 400, dtype=torch.double, requires_grad=True)
    found = vmap(torch.mm)(left, right)
    assert found.requires_grad
    cotangent = torch.randn_like(found)
    expected = torch.autograd.grad(torch.bmm(left, right), (left, right), cotangent)
    assert_close(torch.autograd.grad(found, (left, right), cotangent), expected)
    with torch.inference_mode():
        assert_close(vmap(torch.mm)(left, right), torch.bmm(left, right))


def test_layer_norms(threads):
    x = torch.randn(70, 40, 64, dtype=torch.double)
    weight, bias = torch.randn(2, 64, dtype=torch.double)
    found = vmap(grad(of_layer_norm, (0, 1, 2)), (0, None, None))(x, weight, bias)
    leaves = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    rows = [y.clone().requires_grad_() for y in x]
    expected = [torch.autograd.grad(of_layer_norm(y, *leaves), (y, *leaves)) for y in rows]
    assert_close(found, tuple(map(torch.stack, zip(*expected, strict=True))))
