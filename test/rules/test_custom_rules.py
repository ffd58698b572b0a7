"""Batching rules that a program gives for operators of its own."""

import uuid

import pytest
import torch

from functorch_ext import FallbackWarning, grad, register_batching_rule, vmap
from test.oracle import assert_close, rand

pytestmark = pytest.mark.filterwarnings("error::functorch_ext.FallbackWarning")


def product(x: torch.Tensor, y: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return x * y * scale


def define(function, mutates_args=()):
    """A fresh custom operator."""
    name = f"functorch_ext_test::rule_{uuid.uuid4().hex}"
    return torch.library.custom_op(name, mutates_args=mutates_args)(function)


def differentiable_product():
    op = define(product)
    op.register_autograd(
        lambda ctx, g: (g * ctx.saved_tensors[1], g * ctx.saved_tensors[0], None),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:2]),
    )
    return op


def last(tensor, dim):
    """The samples in the last dimension, where broadcasting would go wrong if dims were mixed up."""
    return tensor.unsqueeze(-1) if dim is None else tensor.movedim(dim, -1)


def rule_for(op, seen=None):
    def rule(info, in_dims, x, y, *rest):
        if seen is not None:
            seen.append((info.batch_size, info.randomness, in_dims))
        return op(last(x, in_dims[0]), last(y, in_dims[1]), *rest), -1

    return rule


@pytest.mark.parametrize("form", ["definition", "overload", "packet", "name", "decorator"])
def test_ways_to_name_the_operator(form):
    op = define(product)
    rule = rule_for(op)
    packet = getattr(torch.ops.functorch_ext_test, op._name)
    if form == "decorator":
        assert register_batching_rule(op)(rule) is rule
    else:
        given = {
            "definition": op,
            "overload": op._opoverload,
            "packet": packet,
            "name": op._qualname,
        }[form]
        assert register_batching_rule(given, rule) is rule
    x, y = rand(3, 4), rand(3, 4)
    assert_close(vmap(op)(x, y), x * y)


def test_what_a_rule_is_told():
    op, seen = define(product), []
    register_batching_rule(op, rule_for(op, seen))
    x, y = rand(3, 4), rand(4, 3)
    assert_close(vmap(op, (0, 1, None), randomness="same")(x, y, 2.0), 2 * x * y.T)
    assert_close(vmap(op, (0, None))(x, y[:, 0]), x * y[:, 0])
    assert seen == [(3, "same", (0, 1, None)), (3, "error", (0, None, None))]


def test_functions_of_register_vmap_are_found():
    op = define(product)
    op.register_vmap(rule_for(op))
    x, y = rand(3, 4), rand(3, 4)
    assert_close(vmap(op)(x, y), x * y)


def test_derivatives():
    op = differentiable_product()
    register_batching_rule(op, rule_for(op))
    x, y = rand(3, 4), rand(4)
    per_sample = vmap(grad(lambda x: op(x, y).pow(2).sum()))
    assert_close(per_sample(x), 2 * x * y**2)
    through = grad(lambda x: vmap(lambda x: op(x, y).pow(2).sum())(x).sum())
    assert_close(through(x), 2 * x * y**2)


def test_nested_vmap():
    op, seen = define(product), []
    register_batching_rule(op, rule_for(op, seen))
    x, y = rand(3, 2, 4), rand(2, 4)
    assert_close(vmap(vmap(op), (0, None))(x, y), x * y)
    assert [batch_size for batch_size, _, _ in seen] == [2, 3]


def test_transforms_inside_a_rule():
    op = define(product)

    def rule(info, in_dims, x, y, scale):
        assert in_dims == (0, None, None)
        return vmap(lambda x: x * y * scale)(x), 0

    register_batching_rule(op, rule)
    x, y = rand(3, 4), rand(4)
    assert_close(vmap(op, (0, None))(x, y), x * y)


def test_lists_and_several_outputs():
    def join(xs: list[torch.Tensor], n: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return torch.cat(xs), [x * n for x in xs]

    op = define(join)

    @register_batching_rule(op)
    def rule(info, in_dims, xs, n):
        assert in_dims == ([0, 1], None)
        xs = [x.movedim(dim, 0) for x, dim in zip(xs, in_dims[0], strict=True)]
        return (torch.cat(xs, 1), [x * n for x in xs]), (0, [0, 0])

    x, y = rand(3, 2), rand(4, 3)
    joined, multiples = vmap(op, ([0, 1], None))([x, y], 3)
    assert_close(joined, torch.cat([x, y.T], 1))
    assert_close(multiples, [3 * x, 3 * y.T])


def test_operators_that_mutate():
    def double(x: torch.Tensor) -> None:
        x.mul_(2)

    op = define(double, mutates_args=("x",))

    @register_batching_rule(op)
    def rule(info, in_dims, x):
        return op(x), None

    def call(x):
        x = x.clone()
        op(x)
        return x

    x = rand(3, 4)
    assert_close(vmap(call)(x), 2 * x)


def test_an_operator_with_a_rule_of_ours():
    with pytest.raises(ValueError, match="aten::sin.default has a batching rule already"):
        register_batching_rule(torch.ops.aten.sin.default, lambda *args: None)


@pytest.mark.parametrize(
    ("op", "error", "message"),
    [
        (torch.sin, TypeError, "op must be an operator .* got builtin_function_or_method"),
        ("functorch_ext_test::absent", ValueError, "no operator called"),
        (torch.ops.aten.add, ValueError, "overloads"),
    ],
)
def test_what_is_not_an_operator(op, error, message):
    with pytest.raises(error, match=message):
        register_batching_rule(op, lambda *args: None)


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda x: x, TypeError, r"must return \(output, out_dims\), got a Tensor"),
        (lambda x: (x, 5), ValueError, "out_dim 5 for a tensor of shape"),
        (lambda x: (x, 1), ValueError, "with out_dim 1, but there are 3 samples"),
        (lambda x: (1.0, None), TypeError, "must return tensors, got a float"),
    ],
)
def test_what_a_rule_may_return(returned, error, message):
    op = define(product)
    register_batching_rule(op, lambda info, in_dims, x, y, scale: returned(x))
    with pytest.raises(error, match=message):
        vmap(op)(rand(3, 4), rand(3, 4))


def test_without_a_rule_there_is_the_loop():
    op = define(product)
    with pytest.raises(FallbackWarning):
        vmap(op)(rand(3, 4), rand(3, 4))
