"""Forward mode of products of matrices, whose tangents are sums of products."""

import itertools

import pytest
import torch
from torch.nn.functional import linear

from functorch_ext import grad, hessian, jacfwd, jacrev, jvp, vmap
from test.oracle import assert_close, rand

SIZES = {"matrices": (), "stacks": (3,)}
PRODUCTS = {
    "product": lambda term, left, right: left @ right,
    "sum": lambda term, left, right: (torch.addmm if left.dim() == 2 else torch.baddbmm)(
        term, left, right
    ),
    "scaled": lambda term, left, right: (torch.addmm if left.dim() == 2 else torch.baddbmm)(
        term, left, right, beta=0.5, alpha=-2
    ),
    "layer": lambda term, left, right: linear(left, right.mT[0] if right.dim() == 3 else right.mT),
}
# Which of term, left and right have a tangent.
VARYING = [each for count in (1, 2, 3) for each in itertools.combinations(range(3), count)]
TERMS = {"whole": (4, 2), "row": (2,), "column": (4, 1)}


def by_definition(name, term, left, right):
    """The same of elementwise operators, which have formulas of their own."""
    if name == "layer" and right.dim() == 3:
        right = right[0]
    product = (left.unsqueeze(-1) * right.unsqueeze(-3)).sum(-2)
    factors = {"sum": (1, 1), "scaled": (0.5, -2)}.get(name, (0, 1))
    return factors[0] * term + factors[1] * product


def arguments(kind, shape):
    stack = SIZES[kind]
    return rand(*shape), rand(*stack, 4, 5), rand(*stack, 5, 2)


@pytest.mark.parametrize("shape", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("varying", VARYING, ids=str)
def test_tangents(varying, name, kind, shape):
    fixed = arguments(kind, shape)

    def of_varying(f):
        def call(*given):
            args = list(fixed)
            for position, value in zip(varying, given):
                args[position] = value
            return f(*args)

        return call

    primals = tuple(fixed[position] for position in varying)
    tangents = tuple(primal.cos() for primal in primals)
    expected = jvp(of_varying(lambda *args: by_definition(name, *args)), primals, tangents)
    assert_close(jvp(of_varying(PRODUCTS[name]), primals, tangents), expected)


def pushed(f):
    return lambda *args: jvp(f, args, args)


def number(f):
    return lambda *args: f(*args).sin().sum()


SECOND = {
    "reverse over forward": lambda f: grad(lambda *args: sum(pushed(f)(*args)).sum(), (0, 1, 2)),
    "forward over reverse": lambda f: pushed(grad(number(f), (0, 1, 2))),
    "forward over forward": lambda f: pushed(lambda *args: pushed(f)(*args)[1]),
    "hessian": lambda f: hessian(number(f), (0, 1, 2)),
    "jacfwd(jacrev)": lambda f: jacfwd(jacrev(number(f), 1), 2),
    "jacrev(jacfwd)": lambda f: jacrev(jacfwd(number(f), 1), 2),
    "samples": lambda f: (
        lambda term, left, right: vmap(
            grad(lambda *args: pushed(f)(*args)[1].sum(), (1, 2)), (None, 0, None)
        )(term, torch.stack([left, left.cos()]), right)
    ),
}


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("transform", SECOND.values(), ids=SECOND)
def test_second_derivatives(transform, name, kind):
    args = arguments(kind, (4, 2))
    expected = transform(lambda *args: by_definition(name, *args))(*args)
    assert_close(transform(PRODUCTS[name])(*args), expected)


@pytest.mark.parametrize("name", PRODUCTS)
def test_what_a_closure_requires_grad_of_stays_differentiable(name):
    """The tangents' own graph: by a parameter that only autograd outside knows."""
    term, left, right = arguments("matrices", (4, 2))
    weight = right.clone().requires_grad_()

    def slope(f, weight):
        return jvp(lambda left: f(term, left * 2, weight).sin(), (left,), (left.cos(),))[1]

    (actual,) = torch.autograd.grad(slope(PRODUCTS[name], weight).sum(), weight)
    expected = grad(lambda w: slope(lambda *args: by_definition(name, *args), w).sum())(right)
    assert_close(actual, expected)


def test_the_first_product_is_overwritten_only_where_nobody_has_it():
    left, right = rand(4, 5), rand(5, 2)
    kept = []

    def func(left, right):
        product = left @ right
        kept.append(product.exp())
        return product * kept[0]

    def by_hand(left, right):
        product = (left.unsqueeze(-1) * right).sum(1)
        return product * product.exp()

    args = (left, right), (right.mT.repeat(2, 1), left.mT[:, :2])
    assert_close(jvp(func, *args), jvp(by_hand, *args))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex128])
def test_other_numbers(dtype):
    left, right = rand(4, 5).to(dtype), rand(5, 2).to(dtype)
    output, tangent = jvp(torch.mm, (left, right), (left, right))
    assert tangent.dtype == output.dtype == dtype
    torch.testing.assert_close(tangent, 2 * (left @ right))


def test_automatic_casts():
    left, right = rand(4, 5).float(), rand(5, 2).float()
    with torch.autocast("cpu", torch.bfloat16):
        output, tangent = jvp(torch.mm, (left, right), (left, right))
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(tangent, 2 * output, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("both", [True, False])
def test_steps_of_a_relu(both):
    """Its slope doesn't change with the point."""
    x, v, w = rand(5), rand(5), rand(5)

    def slope(x, w):
        return grad(lambda x: (w * x.relu()).sum())(x)

    primals, tangents = ((x, w), (v, v)) if both else ((w,), (v,))
    found = jvp(slope if both else lambda w: slope(x, w), primals, tangents)
    assert_close(found, (w * (x > 0), v * (x > 0)))


def test_steps_of_a_relu_where_two_planes_have_tangents():
    xs, w = rand(3, 5), rand(5)

    def slopes(w):
        slope = grad(lambda w, x: (w * x).relu().square().sum())
        return vmap(lambda x: sum(jvp(lambda w: slope(w, x), (w,), (x * w,))))(xs)

    by_hand = lambda w: torch.stack([2 * (x**2 + x**3) * w * (w * x > 0) for x in xs])
    assert_close(jvp(slopes, (w,), (w.cos(),)), jvp(by_hand, (w,), (w.cos(),)))
