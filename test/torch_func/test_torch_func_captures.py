"""What crosses between torch.func's transforms and ours: closures, pullbacks, draws, indices."""

import pytest
import torch
import torch.func as theirs

import functorch_ext as ours
from test.device import device
from test.oracle import assert_close, rand
from test.state import assert_clean_state

X, Y = rand(3, 2), rand(3, 2)
BOTH = pytest.mark.parametrize(
    ("around", "inside"), [(ours, theirs), (theirs, ours)], ids=["in_ours", "in_theirs"]
)


@BOTH
def test_closures(around, inside):
    def func(x, y):
        return inside.grad(lambda z: (z * y * x).sin().sum())(x) + x

    expected = torch.stack([y * x * (x * x * y).cos() + x for x, y in zip(X, Y, strict=True)])
    assert_close(around.vmap(func)(X, Y), expected)
    assert_clean_state()


@BOTH
def test_a_closure_is_differentiated_outside(around, inside):
    weight = rand(2)

    def total(w):
        return inside.vmap(lambda x: inside.grad(lambda z: (z.sin() * w).sum())(x))(X).sum()

    assert_close(around.grad(total)(weight), X.cos().sum(0))


@BOTH
def test_a_pullback_is_mapped(around, inside):
    def jacobian(x):
        output, pullback = inside.vjp(torch.sin, x)
        rows = inside.vmap(pullback)(torch.eye(2, dtype=x.dtype))[0]
        return rows + output

    expected = torch.stack([x.cos().diag() + x.sin() for x in X])
    assert_close(around.vmap(jacobian)(X), expected)
    square = lambda x: jacobian(x).sum()
    assert_close(around.grad(square)(X[0]), 2 * X[0].cos() - X[0].sin())
    assert_clean_state()


def test_their_pullback_outlives_its_layer_in_ours():
    def func(x, y):
        _, pullback = theirs.vjp(lambda z: z.sin() * 2, x)
        return pullback(y)[0] * y

    assert_close(ours.vmap(func)(X, Y), 2 * X.cos() * Y * Y)


def test_linearize_inside_theirs():
    def func(x):
        output, push_forward = ours.linearize(torch.sin, x)
        return output + push_forward(x)

    assert_close(theirs.vmap(func)(X), X.sin() + X.cos() * X)
    assert_clean_state()


@BOTH
@pytest.mark.parametrize("randomness", ["same", "different"])
def test_draws_follow_the_map_that_they_are_in(around, inside, randomness):
    def func(x):
        return inside.grad(lambda z: (z * torch.randn(2, dtype=z.dtype)).sum())(x)

    drawn = around.vmap(func, randomness=randomness)(X)
    assert torch.equal(drawn[0], drawn[1]) == (randomness == "same")
    with pytest.raises(RuntimeError, match="random"):
        around.vmap(func)(X)
    assert_clean_state()


@BOTH
@pytest.mark.parametrize("outer", ["same", "different"])
@pytest.mark.parametrize("inner", ["same", "different"])
def test_draws_of_nested_maps(around, inside, outer, inner):
    draw = lambda x: torch.rand(4) + 0 * x
    drawn = around.vmap(inside.vmap(draw, randomness=inner), randomness=outer)(torch.zeros(2, 2))
    assert torch.equal(drawn[:, 0], drawn[:, 1]) == (inner == "same")
    assert torch.equal(drawn[0], drawn[1]) == (outer == "same")


def test_library_that_maps():
    flex = pytest.importorskip("torch.nn.attention.flex_attention")

    def func(x):
        causal = lambda b, h, query, key: query >= key
        mask = flex.create_mask(causal, 1, 1, 4, 4, device=device())
        return torch.where(mask[0, 0], x[:, None] * x, 0.0)

    x = rand(3, 4)
    assert_close(ours.vmap(func)(x), torch.stack([func(row) for row in x]))


def test_block_mask():
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    causal = lambda b, h, query, key: query >= key
    expected = flex.create_block_mask(causal, 1, 1, 256, 256, device=device()).to_dense()

    def func(x):
        return x + flex.create_block_mask(causal, 1, 1, 256, 256, device=device()).to_dense()

    assert_close(ours.vmap(func)(torch.zeros(2)), torch.stack([expected.float()] * 2))


@BOTH
def test_indices_without_dimensions(around, inside):
    rows = torch.tensor([1, 0, 1])
    func = lambda x, i: inside.grad(lambda z: z[i].sin())(x)
    expected = torch.zeros_like(X)
    expected[range(3), rows] = X[range(3), rows].cos()
    assert_close(around.vmap(func)(X, rows), expected)


class Cube(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 4 * x**2 * cotangent  # not what autograd would say of the forward


def test_custom_functions():
    func = lambda x: theirs.grad(lambda z: Cube.apply(z).sum())(x)
    assert_close(ours.vmap(func)(X), 4 * X**2)
    total = lambda x: theirs.vmap(lambda z: Cube.apply(z))(x).sum()
    assert_close(ours.grad(total)(X), 4 * X**2)
    func = lambda x: ours.grad(lambda z: Cube.apply(z).sum())(x)
    assert_close(theirs.vmap(func)(X), 4 * X**2)
    assert_clean_state()


def test_a_custom_function_differentiated_by_torch_func_around_vmap():
    total = lambda function: lambda x: ours.vmap(lambda z: function.apply(z))(x).sum()
    with pytest.raises(RuntimeError, match="Give it a vmap staticmethod"):
        theirs.grad(total(Cube))(X)

    class Mapped(Cube):
        generate_vmap_rule = False

        @staticmethod
        def vmap(info, in_dims, x):
            return Mapped.apply(x), in_dims[0]

    assert_close(theirs.grad(total(Mapped))(X), 4 * X**2)


def test_a_write_to_what_their_transform_made_is_refused():
    def func(x):
        def inner(z):
            out = torch.zeros(2, dtype=z.dtype)
            out[0] = z[0]
            return out.sum()

        return theirs.grad(inner)(x)

    try:
        result = ours.vmap(func)(X)
    except RuntimeError as error:
        assert "functorch_ext.vmap" in str(error)
    else:
        assert_close(result, torch.tensor([[1.0, 0.0]]).expand(3, 2).to(X))
