"""Operators to which PyTorch gives no derivative, or a constant's: right here, or an error."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from functorch_ext import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

special = torch.special
X = torch.tensor([0.03, 0.7, 1.9, 4.2], dtype=torch.float64)
SIGNED = torch.tensor([-2.3, -0.04, 0.0, 0.2, 0.9, 1.0], dtype=torch.float64)

FUNCTIONS = {
    "bessel_j0": SIGNED,
    "bessel_j1": SIGNED,
    "bessel_y0": X,
    "bessel_y1": X,
    "modified_bessel_i0": SIGNED,
    "modified_bessel_i1": SIGNED,
    "modified_bessel_k0": X,
    "modified_bessel_k1": X,
    "scaled_modified_bessel_k0": X,
    "scaled_modified_bessel_k1": X,
    "spherical_bessel_j0": SIGNED,
}
POLYNOMIALS = [
    *(f"{prefix}chebyshev_polynomial_{kind}" for prefix in ("", "shifted_") for kind in "tuvw"),
    "hermite_polynomial_h",
    "hermite_polynomial_he",
    "laguerre_polynomial_l",
    "legendre_polynomial_p",
]


def differences(func, x, step=1e-3):
    """The derivative of an elementwise function, to about ``step**4``."""
    near = 8 * (func(x + step) - func(x - step))
    return (near - func(x + 2 * step) + func(x - 2 * step)) / (12 * step)


def derivatives(func, x):
    """Of an elementwise function, along every route."""
    ones = torch.ones_like(x)
    total = lambda x: func(x).sum()
    yield grad(total)(x)
    yield vjp(func, x)[1](ones)[0]
    yield jvp(func, (x,), (ones,))[1]
    yield linearize(func, x)[1](ones)
    yield vmap(grad(func))(x)
    yield vmap(lambda x: jvp(func, (x,), (torch.ones_like(x),))[1])(x)
    yield grad(lambda x: vmap(func)(x).sum())(x)
    yield jvp(vmap(func), (x,), (ones,))[1]
    yield jacrev(func)(x).diagonal()
    yield jacfwd(func)(x).diagonal()


def check_orders(func, x, highest=3, atol=1e-7):
    """Derivatives of each order against differences of the order before."""
    for order in range(highest):
        before = func
        for found in derivatives(before, x):
            assert_close(found, differences(before, x), atol=atol, rtol=1e-7)
        push = order % 2 == 0

        def func(x, before=before, push=push):
            if push:
                return jvp(before, (x,), (torch.ones_like(x),))[1]
            return grad(lambda x: before(x).sum())(x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_functions(name):
    func = getattr(special, name)
    check_orders(func, FUNCTIONS[name][1:] if "k" in name or "y" in name else FUNCTIONS[name])
    for found in (func(SIGNED), grad(lambda x: func(x).sum())(SIGNED.float())):
        assert isinstance(found, Tensor)


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials(name):
    func = getattr(special, name)
    degrees = torch.tensor([0, 1, 2, 5, 3, 4])
    for n in (0, 1, 4, degrees, degrees.double(), torch.tensor(3)):
        of_x = lambda x, n=n: func(x, n)
        assert_close(jvp(of_x, (SIGNED,), (SIGNED,))[0], func(SIGNED, n))
        assert_close(
            grad(lambda x, f=of_x: f(x).sum())(SIGNED),
            differences(of_x, SIGNED),
            atol=1e-6,
            rtol=1e-7,
        )
    check_orders(lambda x: func(x, 4), SIGNED, atol=1e-5)
    each = vmap(grad(func))(SIGNED, degrees)
    assert_close(each, grad(lambda x: func(x, degrees).sum())(SIGNED))
    assert func(SIGNED.float(), 3).dtype == vmap(grad(lambda x: func(x, 3)))(SIGNED.float()).dtype
    assert_close(grad(lambda x: func(x, -1).sum())(SIGNED), torch.zeros_like(SIGNED))


def test_every_special_function_is_seen_to():
    """Those that PyTorch doesn't differentiate by any argument."""
    others = {"airy_ai", "zeta", "multigammaln"}
    for name in dir(special):
        func = getattr(special, name)
        known = name in FUNCTIONS or name in POLYNOMIALS or name in others
        if name.startswith("_") or not callable(func) or known:
            continue
        for arguments in ((), (torch.tensor(3),), (3,)):
            try:
                y = func(X.clone().requires_grad_(), *arguments)
            except (IndexError, RuntimeError, TypeError, ValueError):
                continue
            assert not isinstance(y, Tensor) or y.requires_grad or not y.is_floating_point(), name


def airy(x):
    return special.airy_ai(x)


@pytest.mark.parametrize(
    "transform",
    [
        lambda: grad(lambda x: airy(x).sum())(X),
        lambda: jvp(airy, (X,), (X,)),
        lambda: linearize(airy, X),
        lambda: vmap(grad(airy))(X),
        lambda: grad(lambda x: vmap(airy)(x).sum())(X),
    ],
)
def test_airy(transform):
    with pytest.raises(NotImplementedError, match="airy_ai has no derivative"):
        transform()
    assert_close(vmap(airy)(X), airy(X))


M = torch.linspace(-1.3, 2.1, 24, dtype=torch.float64).sin().reshape(2, 3, 4)
WEIGHT = torch.linspace(0.5, 1.5, 3, dtype=torch.float64)

STATISTICS = {
    "layer_norm": (
        lambda x: torch.native_layer_norm(x, (4,), None, None, 0.1),
        lambda x: (
            F.layer_norm(x, (4,), eps=0.1),
            x.mean(-1, keepdim=True),
            (x.var(-1, correction=0, keepdim=True) + 0.1).rsqrt(),
        ),
    ),
    "batch_norm": (
        lambda x: torch.native_batch_norm(x, WEIGHT, None, None, None, True, 0.1, 0.1),
        lambda x: (
            F.batch_norm(x, None, None, weight=WEIGHT, training=True, eps=0.1),
            x.mean((0, 2)),
            (x.var((0, 2), correction=0) + 0.1).rsqrt(),
        ),
    ),
    "batch_norm_legit": (
        lambda x: torch._native_batch_norm_legit(x, WEIGHT, None, True, 0.1, 0.1),
        lambda x: (
            F.batch_norm(x, None, None, weight=WEIGHT, training=True, eps=0.1),
            x.mean((0, 2)),
            (x.var((0, 2), correction=0) + 0.1).rsqrt(),
        ),
    ),
    "group_norm": (
        lambda x: torch.native_group_norm(x, WEIGHT, None, 2, 3, 4, 3, 0.1),
        lambda x: (
            F.group_norm(x, 3, WEIGHT, eps=0.1),
            x.mean(-1),
            (x.var(-1, correction=0) + 0.1).rsqrt(),
        ),
    ),
    "lstsq": (
        lambda x: tuple(torch.linalg.lstsq(x.mT, x.mT, driver="gelsd"))[3:],
        lambda x: (torch.linalg.svdvals(x.mT),),
    ),
    "view(dtype)": (
        lambda x: (
            x.view(torch.float64).sin(),
            x.view(torch.complex128).abs(),
            (x * (1 + 2j)).view(torch.float64),
            x.cos().view(torch.complex128).view(torch.float64),
        ),
        lambda x: (
            x.sin(),
            x.unflatten(-1, (2, 2)).norm(dim=-1),
            torch.stack([x, 2 * x], -1).flatten(-2),
            x.cos(),
        ),
    ),
    "cholesky_inverse": (
        lambda x: (torch.cholesky_inverse(x[0, :, :3] + 2 * torch.eye(3).double()),),
        lambda x: (torch.cholesky_inverse((x[0, :, :3] + 2 * torch.eye(3).double()).tril()),),
    ),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_outputs_beside_the_first(name):
    given, same = STATISTICS[name]
    for k in range(len(given(M))):
        of = lambda x, k=k: given(x)[k]
        expected = lambda x, k=k: same(x)[k]
        number = lambda f: lambda x: f(x).square().sum()
        for transform in (
            lambda f: grad(number(f))(M),
            lambda f: jvp(f, (M,), (M.exp(),)),
            lambda f: linearize(f, M)[1](M.exp()),
            lambda f: hessian(number(f))(M),
            lambda f: jacrev(jacrev(number(f)))(M),
            lambda f: vmap(grad(number(f)))(torch.stack([M, M.cos()])),
            lambda f: vmap(lambda x: jvp(f, (x,), (x,)))(torch.stack([M, M.cos()])),
            lambda f: grad(lambda x: vmap(number(f))(x).sum())(torch.stack([M, M.cos()])),
        ):
            assert_close(transform(of), transform(expected), atol=1e-8, rtol=1e-8)


def test_bits_read_as_other_numbers():
    with pytest.raises(NotImplementedError, match="has no derivative"):
        grad(lambda x: x.view(torch.float32).sum())(X)
    exponent = lambda x: (x.view(torch.int64) >> 52).sum() * x.sum()
    assert_close(grad(exponent)(X), (X.view(torch.int64) >> 52).sum().expand(4).double())

    def written(x):
        made = torch.zeros_like(x)
        made.view(torch.complex128).copy_(x.view(torch.complex128) * 2j)
        return made

    assert_close(
        jvp(written, (X,), (X,))[1], torch.view_as_real(X.view(torch.complex128) * 2j).flatten()
    )
