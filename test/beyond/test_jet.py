"""Taylor mode, against derivatives by time of the function on a curve, by plain autograd."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from functorch_ext import grad, jet, jit, jvp, stop_gradient, vmap
from test.oracle import assert_close, loop, rand


def curve(function, primals, series):
    """The output and its derivatives, one element and one order at a time."""
    time = torch.zeros((), dtype=torch.float64, requires_grad=True)
    moved = [
        x + sum(each * time ** (k + 1) / math.factorial(k + 1) for k, each in enumerate(rows))
        for x, rows in zip(primals, series, strict=True)
    ]
    output = function(*moved)
    orders = [output.flatten().unbind()]
    for _ in series[0]:
        orders.append([_rate(each, time) for each in orders[-1]])
    shaped = [torch.stack(order).reshape(output.shape) for order in orders]
    return shaped[0].detach(), [each.detach() for each in shaped[1:]]


def _rate(element, time):
    if not element.requires_grad:
        return torch.zeros_like(element)
    (rate,) = torch.autograd.grad(element, time, create_graph=True, allow_unused=True)
    return torch.zeros_like(element) if rate is None else rate


def check(function, *primals, order=4, tolerance=1e-8):
    series = [[rand(*x.shape) for _ in range(order)] for x in primals]
    assert_close(jet(function, primals, series), curve(function, primals, series), tolerance)


POINTWISE = [
    *"sin cos tan sinh cosh tanh sigmoid exp exp2 expm1 erf erfc atan asinh".split(),
    *"abs relu sign square neg reciprocal ceil digamma".split(),
]
POSITIVE = "log log2 log10 log1p sqrt rsqrt lgamma".split()
BOUNDED = "asin acos atanh".split()


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise(name):
    check(getattr(torch, name), rand(2))


@pytest.mark.parametrize("name", POSITIVE)
def test_pointwise_of_positive_numbers(name):
    check(getattr(torch, name), rand(2).abs() + 0.5)


@pytest.mark.parametrize("name", [*BOUNDED, "acosh"])
def test_pointwise_of_an_interval(name):
    shift = 2 if name == "acosh" else 0
    check(getattr(torch, name), rand(2).tanh() * 0.8 + shift)


FUNCTIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu, tanh": partial(F.gelu, approximate="tanh"),
    "softplus": lambda x: F.softplus(x * 8, beta=2, threshold=10),
    "logsigmoid": F.logsigmoid,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.3),
    "elu": F.elu,
    "softmax": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: x.log_softmax(0),
    "logsumexp": lambda x: x.logsumexp(0),
    "mse_loss": lambda x: F.mse_loss(x.sin(), x.flip(0)),
    "norm": lambda x: x.norm(),
    "prod": lambda x: x.prod(),
    "cumprod": lambda x: x.cumprod(0),
    "std": lambda x: x.std(),
    "max": lambda x: x.max(0)[0],
    "amax": lambda x: x.amax(),
    "sort": lambda x: x.sort().values,
    "cumsum": lambda x: x.cumsum(0),
    "views": lambda x: torch.cat([x[None, 1:].T, x.view(3, 1), x.unbind()[0].reshape(1, 1)]).mT,
    "stack": lambda x: torch.stack([x, torch.ones_like(x), 2 * x]).sum(0, keepdim=True),
    "split": lambda x: x.split([1, 2])[1] * x.chunk(3)[0],
    "where": lambda x: torch.where(x > 0, x * x, 1.0),
    "clamp": lambda x: x.clamp(-0.3, 0.3) + x.clip(max=0.1),
    "powers": lambda x: x**3 + x**0 + (x * x + 1) ** -1.5 + 2**x + (x * x + 1) ** x,
    "quotients": lambda x: 1 / (x * x + 1) + x / 2 + x.sin() / (x * x + 2) - (3 - x),
    "outer": lambda x: x.outer(x) @ x,
    "einsum": lambda x: torch.einsum("i,j->ij", x, x.sin()),
    "three factors": lambda x: torch.einsum("i,i,i->i", x, x.sin(), x),
    "broadcasting": lambda x: (torch.ones(2, 3).double() + x) * x[:1] - torch.zeros(2, 1),
    "constants at the ends": lambda x: F.pad(x, (1, 1), value=2.0).diff(prepend=torch.ones(1)),
    "float_power": lambda x: (x * x).float_power(1.5),
    "softmax to a dtype": lambda x: x.softmax(0, torch.float64),
    "numbers": lambda x: x * x.detach().max().item() + x.shape[0] if x[0] > -100 else x,
    "out of place": lambda x: torch.add(x, x.sin(), alpha=2).add(1).sub(x, alpha=3),
    "double precision": lambda x: x.float().double() * 0 + x.to(torch.float64),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    check(FUNCTIONS[name], torch.tensor([0.7, -0.4, 1.3], dtype=torch.float64), order=3)


def test_layer_norm():
    # PyTorch's own third derivatives of it are wrong.
    weight, bias, x, rows = rand(3), rand(3), rand(2, 3), [rand(2, 3) for _ in range(3)]

    def plain(x):
        centred = x - x.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + 0.1).sqrt() * weight + bias

    normalized = lambda x: F.layer_norm(x, (3,), weight, bias, 0.1)
    assert_close(jet(normalized, (x,), (rows,)), curve(plain, (x,), [rows]))


def test_fourth_order_of_what_has_no_rule():
    check(lambda x: x.prod() * F.elu(x), rand(2))


BILINEAR = {
    "mul": torch.mul,
    "matmul": lambda a, b: a @ b,
    "linear": lambda a, b: F.linear(a, b.T, rand(2).detach() * 0 + 1),
    "addmm": lambda a, b: torch.addmm(a[:, :2], a, b, beta=2),
    "conv1d": lambda a, b: F.conv1d(a[None], b[:, :, None].transpose(0, 1), torch.ones(2).double()),
    "bias": lambda a, b: F.linear(a, b.T, a[0, :2] * b[0]),
    "maximum": lambda a, b: torch.maximum(a[:2], b),
}


@pytest.mark.parametrize("name", BILINEAR)
def test_of_two_arguments(name):
    shapes = [(2, 2), (2, 2)]
    check(BILINEAR[name], *[rand(*shape) for shape in shapes], order=3)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(1, 3), max_size=2), st.integers(0, 2**16))
def test_orders_and_shapes(order, shape, seed):
    torch.manual_seed(seed)
    check(lambda x, y: (x * y).tanh() / (1 + x.exp()), rand(*shape), rand(*shape), order=order)


def test_modulus_of_complex_numbers():
    x, rows = torch.randn(3, dtype=torch.complex128), [torch.randn(3, dtype=torch.complex128)]
    expected = (x.conj() * rows[0]).real / x.abs()
    assert_close(jet(torch.abs, (x,), (rows,)), (x.abs(), [expected]))


def test_containers():
    x, rows = {"a": rand(2), "b": [rand(3)]}, {"a": rand(2), "b": [rand(3)]}
    function = lambda x: {"out": x["a"].sum() * x["b"][0], "constant": torch.ones(2)}
    output, derivatives = jet(function, (x,), ([rows, rows],))
    flat = lambda a, b: a.sum() * b
    pairs = [[rows["a"]] * 2, [rows["b"][0]] * 2]
    value, expected = curve(flat, (x["a"], x["b"][0]), pairs)
    zeros = torch.zeros(2)
    assert_close(output, {"out": value, "constant": torch.ones(2)})
    assert_close(derivatives, {"out": expected, "constant": [zeros, zeros]})


def test_in_other_transforms():
    function = lambda x: (x.sin() * x.prod()).tanh()
    x, rows = rand(3, 2), [rand(3, 2) for _ in range(3)]
    by_jet = lambda x, *rows: jet(function, (x,), (list(rows),))
    by_curve = lambda x, *rows: curve(function, (x,), [rows])
    assert_close(vmap(by_jet)(x, *rows), loop(by_curve)(x, *rows))
    last = lambda x: by_jet(x, *[row[0] for row in rows])[1][-1].sum()
    step = 1e-5 * torch.eye(2, dtype=torch.float64)
    slopes = torch.stack([(last(x[0] + e) - last(x[0] - e)) / 2e-5 for e in step])
    assert_close(grad(last)(x[0]), slopes, 1e-4)
    assert_close(jvp(last, (x[0],), (rows[0][0],))[1], slopes @ rows[0][0], 1e-4)
    assert_close(jit(by_jet, backend="graph")(x[0], rows[0][0]), by_curve(x[0], rows[0][0]))


def _writes(x):
    y = x.clone()
    y[0] = x[1] ** 3
    y += x
    return y


class _Twice(torch.autograd.Function):
    """Has another derivative than its forward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 4 * x * cotangent


AS_A_WHOLE = {
    "writes": (_writes, _writes),
    "grad": (lambda x: grad(lambda x: (x**4).prod())(x), lambda x: 4 * (x**4).prod() / x),
    "vmap": (lambda x: vmap(torch.sin)(x), torch.sin),
    "jvp": (lambda x: jvp(torch.sin, (x,), (x,))[1], lambda x: x.cos() * x),
    "a custom function": (lambda x: _Twice.apply(x), _Twice.apply),
    "stop_gradient": (lambda x: x * stop_gradient(x), lambda x: x * x.detach()),
    "jet": (
        lambda x: jet(lambda y: y**3 * x, (x,), ([x],))[1][0],
        lambda x: 3 * x**4,
    ),
    "jet of a constant": (
        lambda x: jet(lambda y: y**3 * x, (x.new_ones(2),), ([x.new_ones(2)],))[1][0],
        lambda x: 3 * x,
    ),
}


@pytest.mark.parametrize("name", AS_A_WHOLE)
def test_of_what_holds_no_series(name):
    function, plain = AS_A_WHOLE[name]
    x, rows = rand(2), [rand(2), rand(2)]
    assert_close(jet(function, (x,), (rows,)), curve(plain, (x,), [rows]))


def test_errors():
    x = rand(2)
    with pytest.raises(ValueError, match="jet: expected series to be a tuple"):
        jet(torch.sin, (x,), ([x], [x]))
    with pytest.raises(ValueError, match="same length of at least 1"):
        jet(torch.sin, (x,), ([],))
    with pytest.raises(ValueError, match=r"derivative 2 in series .*\(2,\).*\(3,\)"):
        jet(torch.sin, (x,), ([x, rand(3)],))
    with pytest.raises(ValueError, match="derivative 1 in series to have the structure"):
        jet(lambda t: t[0], ([x],), ([{"a": x}],))
    with pytest.raises(RuntimeError, match="jet: .*floating"):
        jet(torch.sin, (torch.arange(2),), ([torch.arange(2)],))
    with pytest.raises(RuntimeError, match="jet: .*only tensors"):
        jet(lambda x: 3, (x,), ([x],))


def test_slopes_are_as_precise_as_the_values():
    x = rand(5) - 3
    _, (slope,) = jet(torch.nn.functional.leaky_relu, (x,), ([torch.ones_like(x)],))
    assert slope[x < 0].unique().tolist() == [0.01]
