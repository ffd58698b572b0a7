"""What a Laplacian makes of first derivatives in one pass over memory, of all sizes and layouts."""

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from functorch_ext import functionalize, grad, jit, jvp, laplacian, vmap
from test.oracle import assert_close, loop, rand

FUNCTIONS = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "cube": lambda x: x**3,
    "square": lambda x: x * x,
    "softplus": nn.functional.softplus,
}


def layers(function, *sizes, dtype=torch.float64):
    """A network, the function between its layers, with a weighted sum of its last outputs."""
    weights = [rand(b, a, dtype=dtype) / a**0.5 for a, b in zip(sizes, sizes[1:], strict=False)]
    factors = rand(sizes[-1], dtype=dtype)

    def network(x):
        for weight in weights:
            x = function(weight @ x)
        return x @ factors

    return network


def trace(network, create_graph=False):
    hessian = torch.autograd.functional.hessian
    return lambda x: hessian(network, x, create_graph=create_graph).trace()


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions(function):
    network = layers(function, 3, 17, 16)
    x = rand(4, 3)
    assert_close(laplacian(network)(x[0]), trace(network)(x[0]))
    assert_close(vmap(laplacian(network))(x), loop(trace(network))(x))


@pytest.mark.parametrize("sizes", [(3, 15), (70, 40), (130, 20), (2, 1500), (65, 1025, 16)])
def test_sizes(sizes):
    network = layers(torch.tanh, *sizes)
    x = rand(2, sizes[0])
    assert_close(laplacian(network)(x[0]), trace(network)(x[0]))
    assert_close(vmap(laplacian(network))(x), loop(trace(network))(x))
    assert_close(vmap(laplacian(network, chunk_size=3))(x), loop(trace(network))(x))


def test_many_directions_in_float32():
    network = layers(torch.sin, 3000, 20, dtype=torch.float32)
    x = rand(3000, dtype=torch.float32)
    assert_close(laplacian(network)(x), trace(network)(x), tolerance=1e-4)


def test_layouts():
    network = layers(torch.tanh, 3, 17, 16)
    x = rand(3, 4, 5)
    expected = loop(loop(trace(network)))(x.permute(1, 2, 0))
    of_each = laplacian(network)
    assert_close(vmap(vmap(of_each, 1), 1)(x), expected)
    assert_close(vmap(vmap(of_each, 1), 2, 1)(x), expected)

    # A value of all columns whose derivatives are narrower, or lie in memory in another order.
    scales = torch.linspace(0.5, 1, 16)[:, None]
    for change in (lambda y: y, lambda y: y.T, lambda y: y[:, :1].sin(), lambda y: y[::2]):
        part = lambda x, change=change: change((scales * x).tanh()).sin().square().sum()
        rows = x[:, :, 0].T
        assert_close(vmap(laplacian(part))(rows), loop(trace(part))(rows))
    factors = rand(4, 16)
    wider = lambda x: ((x.sum() + torch.zeros(4, 16, dtype=x.dtype)).tanh() * factors).sum()
    assert_close(vmap(laplacian(wider))(rows), loop(trace(wider))(rows))


def test_weights_of_each_sample():
    weights, x = rand(4, 17, 3), rand(4, 3)
    of_one = lambda weight: lambda x: (weight @ (weight @ x).tanh()[:3]).tanh().sum()
    expected = loop(lambda weight, x: trace(of_one(weight))(x))(weights, x)
    mapped = vmap(lambda weight, x: laplacian(of_one(weight))(x))
    assert_close(mapped(weights, x), expected)
    several = vmap(lambda weight: laplacian(of_one(weight))(x[0]))(weights)
    assert_close(several, loop(lambda weight: trace(of_one(weight))(x[0]))(weights))


def test_derivatives():
    network = layers(torch.tanh, 3, 17, 16)
    x, v = rand(4, 3), rand(3)
    gradient = lambda x: torch.autograd.functional.jacobian(trace(network, True), x)
    for transform in (
        vmap(grad(laplacian(network))),
        grad(lambda x: vmap(laplacian(network))(x).sum()),
    ):
        assert_close(transform(x), loop(gradient)(x))
    pushed = vmap(lambda x: jvp(laplacian(network), (x,), (v,))[1])
    assert_close(pushed(x), loop(gradient)(x) @ v)
    x.requires_grad_()
    (plain,) = torch.autograd.grad(vmap(laplacian(network))(x).sum(), x)
    assert_close(plain, loop(gradient)(x.detach()))
    with torch.no_grad():
        assert_close(vmap(laplacian(network))(x), loop(trace(network))(x.detach()))


def test_recorded():
    network = layers(torch.tanh, 3, 17, 16)
    mapped = vmap(laplacian(network))
    x, y = rand(4, 3), rand(4, 3)
    expected = loop(trace(network))(y)
    assert_close(make_fx(mapped)(x)(y), expected)
    assert_close(functionalize(mapped)(y), expected)
    assert_close(jit(mapped, backend="graph")(y), expected)
    with torch.inference_mode():
        assert_close(mapped(y), expected)


def test_threads():
    network = layers(torch.tanh, 30, 64, 64)
    x = rand(300, 30)  # more than large pages are taken for
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            results.append(vmap(laplacian(network))(x))
    finally:
        torch.set_num_threads(threads)
    assert_close(*results)
    assert_close(results[0][:3], loop(trace(network))(x[:3]))


def test_samples_on_meta():
    """Autocast, which would have more to do, knows nothing of a device without numbers."""
    weight = torch.randn(32, 40, device="meta")
    laplacians = vmap(laplacian(lambda x: (x.sin() @ weight).tanh().sum()))
    found = laplacians(torch.randn(5, 32, device="meta"))
    assert found.shape == (5,) and found.is_meta
