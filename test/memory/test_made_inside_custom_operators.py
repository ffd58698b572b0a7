"""Results of operators without compiled rules on tensors made inside vmap."""

import pytest
import torch

from functorch_ext import jvp, vmap
from test.oracle import assert_close, loop, rand

NAMESPACE = "functorch_ext_test_made_inside"
library = torch.library.Library(NAMESPACE, "DEF")
for schema, function in {
    "twice(Tensor x) -> Tensor": lambda x: x * 2,
    "pair(Tensor x) -> (Tensor, Tensor)": lambda x: (x * 2, x * 3),
    "several(Tensor x) -> Tensor[]": lambda x: [x * 2, x * 3],
    "head(Tensor(a) x) -> Tensor(a)": lambda x: x[:2],
    "same(Tensor x) -> Tensor": lambda x: x,
    "fill(Tensor(a!) x, Tensor y) -> ()": lambda x, y: x.copy_(y),
}.items():
    library.define(schema)
    library.impl(schema.split("(")[0], function, "CompositeExplicitAutograd")
ops = getattr(torch.ops, NAMESPACE)


def from_a_result(x):
    return ops.twice(torch.ones(3, dtype=x.dtype)).add_(x)


def from_one_of_two(x):
    first, second = ops.pair(torch.ones(3, dtype=x.dtype))
    first[1:] = x[:2]
    return first, second


def from_a_list(x):
    first, second = ops.several(torch.ones(3, dtype=x.dtype))
    second.mul_(x)
    return first, second


def through_a_view(x):
    made = torch.zeros(3, dtype=x.dtype)
    ops.head(made)[1] = x[0]
    return made


def through_an_argument_that_came_back(x):
    made = torch.zeros(3, dtype=x.dtype)
    ops.same(made).add_(x)
    return made


@pytest.mark.parametrize(
    "function",
    [
        from_a_result,
        from_one_of_two,
        from_a_list,
        through_a_view,
        through_an_argument_that_came_back,
    ],
)
def test_writes(function):
    x = rand(4, 3)
    assert_close(vmap(function)(x), loop(function)(x))
    assert_close(vmap(vmap(function))(x.expand(2, 4, 3)), loop(loop(function))(x.expand(2, 4, 3)))


def test_of_a_tensor_from_outside_it_is_not():
    outside = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="into a tensor from outside"):
        vmap(lambda x: ops.same(outside).add_(x))(rand(4, 3))
    assert not outside.any()


def test_a_write_below_a_derivative_raises():
    outside = torch.zeros(3, dtype=torch.float64)

    def function(x):
        ops.fill(outside, x)
        return outside * x

    x = rand(3)
    with pytest.raises(RuntimeError, match="to a tensor from outside|tangent flows into"):
        jvp(lambda x: jvp(function, (x,), (x,)), (x,), (x,))
    assert not outside.any()
