"""Tangents that are zeros without memory: operators on them, and derivatives they take part in."""

import itertools

import pytest
import torch
from torch.utils import _pytree as pytree

from functorch_ext import _C, grad, hessian, jacfwd, jvp, vmap
from test import oracle
from test.oracle import assert_close, rand

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.int64, torch.bool, torch.bfloat16]


def detached(tree):
    return pytree.tree_map(torch.detach, tree)


def differentiating(function, *args):
    """The result of a function that sees the operators as derivative formulas see them."""
    return _C.run_forward(lambda frame: function(*args), [])


def zeros_without_memory(*shape, dtype=torch.float64):
    return torch._efficientzerotensor(shape, dtype=dtype)


def values(shape, dtype):
    return torch.ones(shape, dtype=dtype) * (1 if dtype == torch.bool else 3)


def outcome(function, *args):
    """The result, or that there is none."""
    try:
        return function(*args)
    except (RuntimeError, ValueError):
        return None


def check(function, zero, *rest, swapped=False):
    """``function`` of zeros without memory against the same of zeros in memory."""
    in_memory = torch.zeros(zero.shape, dtype=zero.dtype)
    order = (lambda first: (*rest, first)) if swapped else (lambda first: (first, *rest))
    expected = outcome(function, *order(in_memory))
    actual = differentiating(outcome, function, *order(zero))
    if expected is not None:  # PyTorch forgets to refuse zeros that are bools
        assert actual.dtype == expected.dtype
        torch.testing.assert_close(actual.clone(), expected, equal_nan=True)


PAIRS = {
    "mul": torch.mul,
    "add": torch.add,
    "sub": torch.sub,
    "add twice": lambda x, y: torch.add(x, y, alpha=2),
    "sub half": lambda x, y: torch.sub(x, y, alpha=0.5),
}
SHAPES = [((3,), (3,)), ((2, 1), (3,)), ((), (2,)), ((3,), ()), ((0, 1), (2,))]


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("operator", [*PAIRS, "div"])
def test_pairs_of_every_dtype_and_shape(operator, shapes):
    for zero_dtype, dtype in itertools.product(DTYPES, DTYPES):
        zero = zeros_without_memory(*shapes[0], dtype=zero_dtype)
        check(PAIRS.get(operator, torch.div), zero, values(shapes[1], dtype))
        if operator in PAIRS:
            check(PAIRS[operator], zero, values(shapes[1], dtype), swapped=True)


@pytest.mark.parametrize("operator", [torch.mul, torch.add, torch.sub])
def test_two_zeros(operator):
    for first, second in itertools.product(DTYPES, DTYPES):
        both = zeros_without_memory(2, 1, dtype=first), zeros_without_memory(3, dtype=second)
        result = differentiating(outcome, operator, *both)
        expected = outcome(operator, *(torch.zeros_like(x) for x in both))
        if expected is not None:
            assert result.dtype == expected.dtype
            assert result.shape == expected.shape


@pytest.mark.parametrize("number", [2, 0.5, True, 1j])
@pytest.mark.parametrize("operator", [torch.mul, torch.add, torch.sub, torch.div])
def test_numbers(operator, number):
    for dtype in DTYPES:
        check(lambda x: operator(x, number), zeros_without_memory(3, dtype=dtype))


@pytest.mark.parametrize(
    ("operator", "shapes"),
    [
        (torch.mm, ((2, 3), (3, 4))),
        (torch.mm, ((0, 3), (3, 4))),
        (torch.bmm, ((5, 2, 3), (5, 3, 4))),
        (torch.mv, ((2, 3), (3,))),
        (torch.dot, ((3,), (3,))),
        (torch.vdot, ((3,), (3,))),
        (torch.outer, ((3,), (2,))),
        (torch.matmul, ((5, 2, 3), (3, 4))),
    ],
)
def test_products_of_matrices(operator, shapes):
    for dtype in (torch.float64, torch.complex128):
        first, second = (torch.randn(shape, dtype=dtype) for shape in shapes)
        check(operator, zeros_without_memory(*shapes[0], dtype=dtype), second)
        check(operator, zeros_without_memory(*shapes[1], dtype=dtype), first, swapped=True)


@pytest.mark.parametrize(
    "operator",
    [torch.neg, torch.sum, torch.mean, lambda x: x.sum(0), lambda x: x.sum(dtype=torch.float32)],
)
def test_of_one_tensor(operator):
    for dtype in DTYPES:
        check(operator, zeros_without_memory(2, 3, dtype=dtype))


def test_a_sum_has_memory_of_its_own():
    term = torch.randn(3)

    def double():
        for result in (
            term + zeros_without_memory(3, dtype=term.dtype),
            zeros_without_memory(3, dtype=term.dtype) + term,
            term - zeros_without_memory(2, 3, dtype=term.dtype),
        ):
            result.mul_(2)
        return result

    result = differentiating(double)
    assert_close(term * 2, result[0])


CONSTANTS = {
    "same shape": lambda: rand(2, 3),
    "row": lambda: rand(3),
    "column": lambda: rand(2, 1),
    "larger": lambda: rand(4, 2, 3),
    "0-dim": lambda: rand(),
    "number": lambda: 2.5,
    "int": lambda: torch.tensor([1, 2, 3]),
    "0-dim int": lambda: torch.tensor(3),
    "float32": lambda: torch.randn(3),
    "requires grad": lambda: rand(3, requires_grad=True),
}
FUNCTIONS = {
    "mul": lambda x, c: (x * c).sin() * c,
    "add": lambda x, c: ((x + c) * x).sin() + c,
    "rsub": lambda x, c: (c - x) * (x - c),
    "div": lambda x, c: (
        x / (2 + c * c if isinstance(c, float) else c.square() + 2) + (c / (x * x + 1))
    ),
    "in place": lambda x, c: (x + c).mul_(2).mul_(c).add_(c) * x,
    "where": lambda x, c: torch.where(
        x > 0, x * x, torch.as_tensor(c, dtype=x.dtype).expand_as(x + c)
    ),
    "addcmul": lambda x, c: torch.addcmul(x.sin(), x * x, torch.as_tensor(c, dtype=x.dtype)),
    "pow": lambda x, c: (x * x + 1) ** c,
    "tanh": lambda x, c: (x * c).tanh() * c + x.tanh(),
    "sigmoid": lambda x, c: (x * c).sigmoid() * x.sigmoid(),
    "gelu": lambda x, c: torch.nn.functional.gelu(x * c),
    "elu": lambda x, c: torch.nn.functional.elu(x * c) * x,
    "matmul": lambda x, c: (x + c).mT @ ((x + c).sin() + c) @ x.mT,
}


@pytest.mark.parametrize("constant", CONSTANTS)
@pytest.mark.parametrize("function", FUNCTIONS)
class TestFormulas:
    @pytest.fixture(autouse=True)
    def given(self, function, constant):
        torch.manual_seed(0)
        c = CONSTANTS[constant]()
        self.c = c
        self.function = lambda x: FUNCTIONS[function](x, c)
        self.x, self.tangent = rand(2, 3), rand(2, 3)

    def test_first_derivatives(self):
        expected = oracle.jvp(self.function, self.x, self.tangent)
        actual = jvp(self.function, (self.x,), (self.tangent,))
        assert_close(detached(actual), detached(expected))
        assert actual[1].dtype == actual[0].dtype

    def test_second_derivatives(self):
        push = lambda x: jvp(self.function, (x,), (x.cos(),))[1]
        expected = oracle.jvp(
            lambda x: oracle.jvp(self.function, x, x.cos())[1], self.x, self.tangent
        )
        assert_close(detached(jvp(push, (self.x,), (self.tangent,))), detached(expected))
        total = lambda x: self.function(x).sum()
        assert_close(detached(hessian(total)(self.x)), detached(oracle.hessian(total)(self.x)))
        gradient = grad(lambda x: jvp(total, (x,), (self.tangent,))[1])(self.x)
        assert_close(detached(jvp(grad(total), (self.x,), (self.tangent,))[1]), detached(gradient))

    def test_mapped(self):
        xs, tangents = rand(4, 2, 3), rand(4, 2, 3)
        push = lambda x, t: jvp(self.function, (x,), (t,))
        samples = [push(x, t) for x, t in zip(xs, tangents, strict=True)]
        expected = tuple(torch.stack(parts) for parts in zip(*samples, strict=True))
        assert_close(detached(vmap(push)(xs, tangents)), detached(expected))
        mapped = jvp(vmap(self.function), (xs,), (tangents,))
        assert_close(detached(mapped), detached(expected))
        assert_close(
            detached(vmap(jacfwd(self.function))(xs)),
            detached(torch.stack([jacfwd(self.function)(x) for x in xs])),
        )
        empty = vmap(push)(xs[:0], tangents[:0])
        assert empty[1].shape == (0, *expected[1].shape[1:])


@pytest.mark.parametrize(
    "constant", [torch.randn(3, dtype=torch.complex128), torch.tensor([True, False, True])]
)
def test_other_kinds_of_constants(constant):
    x, tangent = rand(3), rand(3)
    function = lambda x: (x * constant + constant) * x
    expected = tangent * constant * x + (x * constant + constant) * tangent
    assert_close(jvp(function, (x,), (tangent,))[1], expected)


def test_convolutions_with_constant_parts():
    x, weight, bias = rand(2, 3, 7), rand(4, 3, 3), rand(4)
    convolution = torch.nn.functional.conv1d
    for i, given in enumerate([x, weight, bias]):

        def function(part, i=i):
            parts = [x, weight, bias]
            parts[i] = part
            return convolution(*parts).sin()

        tangent = torch.randn_like(given)
        expected = detached(oracle.jvp(function, given, tangent))
        assert_close(jvp(function, (given,), (tangent,)), expected)
        total = lambda part, function=function: function(part).sum()
        pushed = jvp(grad(total), (given,), (tangent,))[1]
        expected = grad(lambda part, total=total, t=tangent: (grad(total)(part) * t).sum())(given)
        assert_close(pushed, expected)
