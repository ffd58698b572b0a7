"""Second derivatives that PyTorch's formulas have wrong, against differences of first ones."""

import pytest
import torch
from torch.nn import functional as F

from functorch_ext import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

STEP = 1e-6


def rand(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


WEIGHT, BIAS = rand(3, seed=1), rand(3, seed=2)
LABELS = torch.tensor([0, 2, 1])
RUNNING = rand(3, seed=3), rand(3, seed=4).abs()


def symmetric(x):
    return x @ x.mT


def positive(x):
    return symmetric(x) + torch.eye(x.shape[-1], dtype=x.dtype)


FUNCTIONS = {
    "det": torch.linalg.det,
    "slogdet": lambda x: torch.linalg.slogdet(x)[1],
    "logdet": lambda x: torch.logdet(positive(x)),
    "solve": lambda x: torch.linalg.solve(x, x.sin()),
    "solve from the right": lambda x: torch.linalg.solve(x, x.sin(), left=False),
    "solve, a vector": lambda x: torch.linalg.solve(x, x[0].sin()),
    "eigvalsh": lambda x: torch.linalg.eigvalsh(symmetric(x)),
    "eigh": lambda x: torch.linalg.eigh(symmetric(x))[1].abs(),
    "eigh of the upper triangle": lambda x: torch.linalg.eigh(symmetric(x), "U")[1].abs(),
    "eig": lambda x: torch.linalg.eig(x)[1].abs(),
    "eig of complex numbers": lambda x: torch.linalg.eig(torch.complex(x, x.mT.sin()))[1].abs(),
    "eigvals": lambda x: torch.linalg.eigvals(x).abs(),
    "householder_product": lambda x: torch.linalg.householder_product(x.tril(), x[0]),
    "cholesky_inverse": lambda x: torch.cholesky_inverse(positive(x).tril()),
    "vector_norm": lambda x: torch.linalg.vector_norm(x, dim=0),
    "dist": lambda x: torch.dist(x, x.cos()),
    "dist of order 3": lambda x: torch.dist(x, x.cos(), 3),
    "vector_norm of order 3": lambda x: torch.linalg.vector_norm(x, 3, dim=0, keepdim=True),
    "vector_norm of order 1.5": lambda x: torch.linalg.vector_norm(x, 1.5),
    "vector_norm of order -2": lambda x: torch.linalg.vector_norm(x, -2),
    "std": torch.std,
    "std along a dimension": lambda x: torch.std(x, 1, correction=0, keepdim=True),
    "std_mean": lambda x: torch.stack(torch.std_mean(x, 0)),
    "copysign": lambda x: torch.copysign(x, x.sin()),
    "copysign of a number": lambda x: torch.copysign(x, -1),
    "renorm": lambda x: torch.renorm(x, 2, 0, 0.5),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "cumprod": lambda x: x.cumprod(-1),
    "logcumsumexp": lambda x: x.logcumsumexp(0),
    "glu": lambda x: F.glu(x.repeat(1, 2).sin()),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(0),
    "layer_norm": lambda x: F.layer_norm(x, (3,), WEIGHT, BIAS),
    "batch_norm": lambda x: F.batch_norm(x, None, None, WEIGHT, BIAS, training=True),
    "batch_norm, evaluating": lambda x: F.batch_norm(x.sin(), *RUNNING, WEIGHT, BIAS),
    "instance_norm": lambda x: F.instance_norm(x[None]),
    "group_norm": lambda x: F.group_norm(x, 1, WEIGHT, BIAS),
    "nll_loss of each": lambda x: F.nll_loss(x.log_softmax(-1), LABELS, reduction="none"),
    "cross_entropy": lambda x: F.cross_entropy(x, LABELS, label_smoothing=0.1),
    "silu": F.silu,
    "mish": F.mish,
    "logit": lambda x: torch.logit(x.sigmoid()),
    "as_strided_scatter": lambda x: torch.as_strided_scatter(
        x.sin(), x[:2, 1:].exp(), (2, 2), (1, 2), 1
    ),
}
ORDERS = {
    "grad of jvp": lambda f, t: grad(lambda x: (jvp(f, (x,), (t,))[1].sin()).sum()),
    "jvp of jvp": lambda f, t: lambda x: jvp(lambda x: jvp(f, (x,), (t,))[1], (x,), (t.cos(),))[1],
    "jvp of grad": lambda f, t: lambda x: jvp(grad(lambda x: f(x).sin().sum()), (x,), (t,))[1],
    "grad of grad": lambda f, t: grad(lambda x: (grad(lambda x: f(x).sin().sum())(x) * t).sum()),
}


def numeric_gradient(f, x):
    """The gradient of a number, by central differences."""
    steps = STEP * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    return torch.stack([(f(x + step) - f(x - step)) / (2 * STEP) for step in steps]).view_as(x)


def along(f, x, t):
    return (f(x + STEP * t) - f(x - STEP * t)) / (2 * STEP)


def expected(order, f, x, t):
    """By a difference of what first-order derivatives give."""
    if order == "grad of jvp":
        return numeric_gradient(lambda x: (jvp(f, (x,), (t,))[1].sin()).sum(), x)
    if order == "jvp of jvp":
        return along(lambda x: jvp(f, (x,), (t,))[1], x, t.cos())
    gradient = grad(lambda x: f(x).sin().sum())
    return along(gradient, x, t)  # second derivatives are symmetric: grad of grad is the same


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_differences(name, order):
    f, x, t = FUNCTIONS[name], rand(3, 3), rand(3, 3, seed=5)
    actual = ORDERS[order](f, t)(x)
    torch.testing.assert_close(actual, expected(order, f, x, t), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_sample_apart(name):
    """Planes below and above vmap: what the derivative is of does not matter."""
    f, x, t = FUNCTIONS[name], rand(2, 3, 3), rand(2, 3, 3, seed=5)
    for order in ("grad of jvp", "jvp of grad"):
        actual = vmap(lambda x, t: ORDERS[order](f, t)(x))(x, t)
        loop = torch.stack([ORDERS[order](f, t)(x) for x, t in zip(x, t)])
        torch.testing.assert_close(actual, loop, rtol=1e-8, atol=1e-10)

    def total(x):
        return vmap(grad(lambda x: f(x).sin().sum()))(x).cos().sum()

    def total_by_loop(x):
        return sum(grad(lambda x: f(x).sin().sum())(x).cos().sum() for x in x)

    torch.testing.assert_close(grad(total)(x), grad(total_by_loop)(x), rtol=1e-8, atol=1e-10)
    tangents = [jvp(g, (x,), (t,))[1] for g in (total, total_by_loop)]
    torch.testing.assert_close(*tangents, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["det", "solve", "eigvalsh", "layer_norm", "softmax", "cumprod"])
def test_hessians_agree(name):
    def f(x):
        return FUNCTIONS[name](x).sin().sum()

    x = rand(2, 3, 3)
    expected = torch.stack([torch.autograd.functional.hessian(f, x) for x in x])
    for second in (
        hessian,
        lambda f: jacrev(jacrev(f)),
        lambda f: jacfwd(jacfwd(f)),
        lambda f: jacrev(jacfwd(f)),
    ):
        torch.testing.assert_close(vmap(second(f))(x), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["eigh", "eig"])
def test_third_derivatives_of_eigenvectors(name):
    f, x, t = FUNCTIONS[name], rand(3, 3), rand(3, 3, seed=5)

    def second(x):
        return jvp(lambda x: jvp(f, (x,), (t,))[1], (x,), (t,))[1]

    third = jvp(second, (x,), (t,))[1]
    torch.testing.assert_close(third, along(second, x, t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["std", "std_mean", "copysign", "vector_norm", "softmax", "cumprod", "glu"]
)
def test_gradients_of_tangents_of_gradients(name):
    f, x, t = FUNCTIONS[name], rand(3, 3), rand(3, 3, seed=5)

    def second(x):
        return (jvp(grad(lambda x: f(x).sin().sum()), (x,), (t,))[1] * t.cos()).sum()

    actual = (grad(second)(x) * t).sum()
    torch.testing.assert_close(actual, along(second, x, t), rtol=1e-6, atol=1e-6)
    push = linearize(second, x)[1]
    torch.testing.assert_close(push(t), actual)


REFUSED = {
    "det": (torch.linalg.det, (2, 3)),
    "slogdet": (lambda x: torch.linalg.slogdet(x)[1], (2, 3)),
    "eigvalsh": (torch.linalg.eigvalsh, (1, 3)),
    "householder_product": (lambda x: torch.linalg.householder_product(x, x[0]), (2, 3)),
    "householder_product, tau": (lambda x: torch.linalg.householder_product(x, x), (3, 3)),
    "renorm": (lambda x: torch.renorm(x, 2, 0, 1.0), (3,)),
    "renorm, norm": (lambda x: torch.renorm(x, -1, 0, 1.0), (3, 3)),
    "renorm, largest": (lambda x: torch.renorm(x, 2, 0, -1.0), (3, 3)),
    "cumprod": (lambda x: x.cumprod(1), ()),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), ()),
    "glu": (F.glu, (3,)),
    "glu of one number": (F.glu, (1,)),
    "layer_norm": (lambda x: F.layer_norm(x, (3,)), (2,)),
    "layer_norm, weight": (lambda x: F.layer_norm(x, (2,), WEIGHT), (3, 2)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_pytorch_refuses_is_refused(name):
    """What the operator is computed from might take it."""
    f, shape = REFUSED[name]
    x = rand(*shape)
    with pytest.raises((RuntimeError, IndexError)) as plain:
        f(x)
    for order in ORDERS.values():
        with pytest.raises(type(plain.value)):
            order(f, x)(x)
        with pytest.raises(type(plain.value)):
            vmap(lambda x: order(f, x)(x))(x[None])


def test_copysign_of_zero():
    """As PyTorch's formula: the derivative is 0 there."""
    zeros = torch.tensor([0.0, -0.0]).double()
    f = lambda x: torch.copysign(x, torch.tensor([-1.0, 1.0]).double())
    assert jvp(lambda x: jvp(f, (x,), (x + 1,))[0], (zeros,), (zeros,))[0].signbit().tolist() == [
        True,
        False,
    ]
    assert jvp(grad(lambda x: f(x).sum()), (zeros,), (zeros + 1,))[1].eq(0).all()


def test_the_deviation_of_equal_numbers():
    """As PyTorch's formula: the derivative is 0 where the deviation is."""
    x, t = torch.ones(3).double(), rand(3)
    for f in (torch.std, lambda x: torch.std_mean(x)[0]):
        assert torch.equal(jvp(grad(f), (x,), (t,))[1], torch.zeros_like(x))
        assert grad(lambda x: jvp(f, (x,), (t,))[1])(x).eq(0).all()


def test_the_pullback_of_as_strided_scatter():
    """PyTorch's own gives the gradient where the source was written, and none elsewhere."""
    x, source, v = rand(3), rand(2), rand(3, seed=6)

    def f(x, source):
        return torch.as_strided_scatter(x, source, (2,), (1,), 0)

    by_x, by_source = vjp(f, x, source)[1](v)
    assert torch.equal(by_x, v * torch.tensor([0, 0, 1]))
    assert torch.equal(by_source, v[:2])
    # It is linear: the pullback's pullback is the function.
    _, again = vjp(lambda v: vjp(f, x, source)[1](v), torch.zeros_like(v))
    assert torch.equal(again((v, source))[0], f(v, source))


def test_gradients_of_ones_own_inside_a_jvp():
    """Formulas keep what an outer transform differentiates, whoever runs the pass."""
    x, t = rand(2, 3, 3), rand(2, 3, 3, seed=5)

    def f(x):
        return torch.linalg.det(x) + F.silu(x).sum()

    def gradient(x):
        leaf = torch.zeros_like(x).requires_grad_()
        return torch.autograd.grad(f(x + leaf), leaf)[0]

    def pushed(gradient):
        return lambda x, t: jvp(gradient, (x,), (t,))[1]

    expected = torch.stack([pushed(grad(f))(x, t) for x, t in zip(x, t)])
    torch.testing.assert_close(
        torch.stack([pushed(gradient)(x, t) for x, t in zip(x, t)]), expected
    )
    torch.testing.assert_close(vmap(pushed(gradient))(x, t), expected)
    torch.testing.assert_close(jvp(vmap(gradient), (x,), (t,))[1], expected)


def test_tangents_of_cholesky_inverse():
    factor = torch.linalg.cholesky(positive(rand(3, 3)))
    tangent = rand(3, 3, seed=5).tril()
    actual = jvp(torch.cholesky_inverse, (factor,), (tangent,))[1]
    torch.testing.assert_close(actual, along(torch.cholesky_inverse, factor, tangent))


@pytest.mark.parametrize("order", ORDERS)
def test_running_statistics_that_samples_share(order):
    """The error says what to do, and comes before anything is written."""
    mean, variance = rand(3), rand(3).abs()
    f = lambda x: F.batch_norm(x, mean, variance, training=True)
    x, before = rand(2, 4, 3), (mean.clone(), variance.clone())
    with pytest.raises(RuntimeError, match="which all samples share"):
        vmap(lambda x: ORDERS[order](f, x.cos())(x))(x)
    assert torch.equal(mean, before[0]) and torch.equal(variance, before[1])


def test_a_stack_of_one_matrix():
    """PyTorch's lu_solve goes by the stride of a dimension of size 1."""
    x = rand(2, 3, 3)
    factors, pivots = torch.linalg.lu_factor(x)

    def solve(factors, pivots):
        return torch.linalg.lu_solve(factors[None], pivots[None], torch.ones(1, 3, 3).double())

    expected = torch.stack([solve(*each) for each in zip(factors, pivots)])
    torch.testing.assert_close(vmap(solve)(factors, pivots), expected)
