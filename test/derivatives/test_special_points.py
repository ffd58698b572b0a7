"""Derivatives where they are a matter of convention: kinks, ties, zeros, infinities, no numbers.

There every transform gives what plain PyTorch gives for a sample, whatever the other samples hold.
"""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F

from functorch_ext import grad, jacrev, jvp, vmap
from functorch_ext._releases import since
from test.oracle import assert_close
from test.releases import from_release

inf, nan = float("inf"), float("nan")
POINTS = torch.tensor(
    [
        [0.0, 0.0, 0.0, 0.0],
        [-0.0, 0.0, 1.0, 1.0],
        [2.0, 2.0, 2.0, 1.0],
        [1.0, nan, 2.0, nan],
        [inf, 1.0, inf, 0.0],
        [-inf, 1.0, -inf, nan],
        [0.0, 3.0, 1.0, 2.0],
        [-1.0, -1.0, 1.0, 1.0],
    ],
    dtype=torch.float64,
)
OTHER = torch.tensor([0.0, -0.0, 2.0, nan], dtype=torch.float64)
BOUND = torch.tensor([1.0, 0.0, -1.0, 2.0], dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, -2.0, 3.0, 0.7], dtype=torch.float64)
PLACES = torch.tensor([0, 1, 0, 1])

ELEMENTWISE = """abs sqrt rsqrt sign sgn reciprocal log log1p exp tan asin acosh atanh erfinv lgamma
    floor round frac angle logit sinc nan_to_num relu square""".split()
FUNCTIONAL = """relu6 hardtanh hardsigmoid hardswish hardshrink softshrink elu selu celu leaky_relu
    logsigmoid softplus softsign gelu silu mish threshold""".split()
BINARY = """atan2 hypot copysign fmod remainder maximum minimum fmax fmin pow xlogy logaddexp
    logaddexp2 div float_power""".split()
REDUCTIONS = "max min amax amin median nanmedian mean nansum std var logsumexp".split()
SCANS = "cumprod cummax cummin logcumsumexp softmax log_softmax sort".split()
ORDERS = (0, 0.5, 1, 2, 3, inf, -inf, -1)


def first(result):
    return result if isinstance(result, torch.Tensor) else result[0]


def elementwise():
    for name in ELEMENTWISE:
        yield name, getattr(torch, name)
    for name in FUNCTIONAL:
        function = getattr(F, name)
        yield name, (lambda x: F.threshold(x, 0.0, 5.0)) if name == "threshold" else function
    for exponent in (0, 1, 2, 0.0, 0.5, -1.0, 3.0):
        yield f"pow {exponent}", lambda x, p=exponent: x**p
    for low, high in ((0.0, 1.0), (0.0, None), (None, 1.0), (1.0, 1.0), (1.0, 0.0)):
        yield f"clamp {low} {high}", lambda x, a=low, b=high: torch.clamp(x, a, b)
    yield "clamp by tensors", lambda x: torch.clamp(x, OTHER, BOUND)
    yield "clamp at x from below", lambda x: torch.clamp(OTHER, min=x)
    yield "clamp at x from above", lambda x: torch.clamp(BOUND, max=x)
    yield "where", lambda x: torch.where(x > 0, x.sqrt(), 0.0)
    yield "masked_fill", lambda x: x.sqrt().masked_fill(x <= 0, 0.0)
    yield "abs of complex", lambda x: torch.complex(x, BOUND * 0).abs()
    for name in BINARY:
        function = getattr(torch, name)
        yield f"{name} with x first", lambda x, f=function: f(x, BOUND)
        yield f"{name} with x second", lambda x, f=function: f(OTHER, x)
        yield f"{name} of x and x", lambda x, f=function: f(x, x)


def reductions():
    for name in REDUCTIONS:
        function = getattr(torch, name)
        if name != "logsumexp":
            yield name, function
        yield f"{name} of rows", lambda x, f=function: first(f(x.view(2, 2), 1))
    for order in ORDERS:
        yield f"norm {order}", lambda x, p=order: torch.linalg.vector_norm(x, p)
        yield f"norm {order} of rows", lambda x, p=order: torch.norm(x.view(2, 2), p, dim=1)
        yield f"dist {order}", lambda x, p=order: torch.dist(x, torch.zeros_like(x), p)
    yield "normalize", lambda x: F.normalize(x, dim=0)
    yield "matrix norm", lambda x: torch.linalg.matrix_norm(x.view(2, 2))
    yield "aminmax", lambda x: sum(torch.aminmax(x))
    yield "std of one number", lambda x: torch.std(x[:1])
    yield "var of one number, uncorrected", lambda x: torch.var(x[:1], correction=0)
    yield "mean of none", lambda x: torch.mean(x[:0])
    yield "quantile", lambda x: x.quantile(0.3)
    yield "kthvalue", lambda x: first(x.kthvalue(2))
    yield "topk", lambda x: first(x.topk(2))
    yield "mode", lambda x: first(x.mode())
    yield "max_pool1d", lambda x: F.max_pool1d(x.view(1, 1, 4), 2)
    yield "max_pool2d", lambda x: F.max_pool2d(x.view(1, 2, 2).repeat(9, 1, 1), 2)
    yield "l1_loss", lambda x: F.l1_loss(x, BOUND)
    yield "huber_loss", lambda x: F.huber_loss(x, BOUND)
    yield "cross_entropy", lambda x: F.cross_entropy(x, torch.tensor(1))
    for reduce in ("prod", "amax", "amin", "mean"):
        yield (
            f"scatter_reduce {reduce}",
            lambda x, r=reduce: torch.ones_like(x[:2]).scatter_reduce(0, PLACES, x, r),
        )
    for name in SCANS:
        scan = getattr(torch, name)
        yield name, lambda x, f=scan: first(f(x, 0))


CASES = {**dict(elementwise()), **dict(reductions())}
# Before, PyTorch has no derivative of aminmax, and one of cumprod that is NaN where a factor is 0.
CASES = from_release((2, 12), CASES, "aminmax", "cumprod")


def weighted(function):
    """One number that depends on every number of the result by another weight."""

    def total(x):
        result = function(x)
        weights = torch.arange(1, result.numel() + 1, dtype=x.dtype).view(result.shape)
        return (result * weights).sum()

    return total


def plain_gradient(function, create_graph=False):
    def gradient(x):
        x = x if x.requires_grad else x.clone().requires_grad_()
        result = function(x)
        if not result.requires_grad:
            return torch.zeros_like(x)
        found = torch.autograd.grad(result, x, create_graph=create_graph, allow_unused=True)[0]
        return torch.zeros_like(x) if found is None else found

    return gradient


def plain_tangent(function):
    def tangent(x):
        with forward_ad.dual_level():
            result = function(forward_ad.make_dual(x.clone(), WEIGHTS))
            found = forward_ad.unpack_dual(result).tangent
            return torch.zeros_like(x.sum()) if found is None else found

    return tangent


def twice(function, gradient):
    return gradient(lambda x: (function(x) * WEIGHTS).sum())


# (ours, of all points at once or one after the other; plain PyTorch's for one)
MODES = {
    "vmap": (vmap, lambda f: f),
    "vmap(grad)": (lambda f: vmap(grad(f)), plain_gradient),
    "vmap(vmap(grad))": (
        lambda f: lambda x: vmap(vmap(grad(f)))(x.view(2, 4, 4)).view(8, 4),
        plain_gradient,
    ),
    "jacrev": (
        lambda f: lambda points: torch.stack([jacrev(f)(x) for x in points]),
        plain_gradient,
    ),
    "vmap(jvp)": (lambda f: vmap(lambda x: jvp(f, (x,), (WEIGHTS,))[1]), plain_tangent),
    "vmap(grad(grad))": (
        lambda f: vmap(twice(grad(f), grad)),
        lambda f: twice(plain_gradient(f, create_graph=True), plain_gradient),
    ),
}


# PyTorch has no second derivative of these, or none where there are several zeros; and its tangent
# of a product that scatter_reduce takes is zero.
LEFT_OUT = {
    ("hardsigmoid", "vmap(grad(grad))"),
    ("scatter_reduce prod", "vmap(grad(grad))"),
    ("scatter_reduce prod", "vmap(jvp)"),
}
if since((2, 14)):
    # A quantile is one of several equal numbers, without vmap another one than under it; a second
    # derivative that is no number may be infinite.
    LEFT_OUT |= {("quantile", mode) for mode in ("vmap(grad)", "vmap(vmap(grad))", "vmap(jvp)")}
    LEFT_OUT.add(("cumprod", "vmap(grad(grad))"))


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, mode) for name in CASES for mode in MODES if (name, mode) not in LEFT_OUT],
)
def test_as_plain_pytorch(name, mode):
    function = weighted(CASES[name])
    transform, plain = MODES[mode]
    expected = torch.stack([plain(function)(x) for x in POINTS])
    assert_close(transform(function)(POINTS), expected)


def test_the_derivative_of_a_product_holds_beside_what_is_no_number():
    """PyTorch divides the product of a tensor without zeros; under vmap nothing is divided."""
    x = torch.tensor([[1.0, nan, 2.0], [0.0, 3.0, 2.0]], dtype=torch.float64)
    expected = torch.tensor([[nan, 2.0, nan], [6.0, 0.0, 0.0]], dtype=torch.float64)
    assert_close(vmap(grad(torch.prod))(x), expected)
