"""grad, grad_and_value and vjp against torch.autograd.grad on plain tensors."""

import pytest
import torch

from functorch_ext import grad, grad_and_value, jacrev, linearize, vjp, vmap
from test import oracle
from test.oracle import assert_close, loop, rand


def scalar(x, y):
    return (x.sin() * y.exp()).sum() + (x * x).prod()


def plain_grads(function, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    return torch.autograd.grad(function(*inputs), inputs)


@pytest.mark.parametrize("argnums", [0, 1, -1, -2, (0,), (1,), (0, 1), (1, 0), (-1, 0)])
def test_argnums(argnums):
    args = rand(3), rand(3)
    both = plain_grads(scalar, *args)
    expected = tuple(both[i] for i in argnums) if isinstance(argnums, tuple) else both[argnums]
    assert_close(grad(scalar, argnums)(*args), expected)
    assert_close(grad_and_value(scalar, argnums)(*args), (expected, scalar(*args)))


def test_pytrees():
    tree = {"w": [rand(2, 3), rand(2)], "x": (rand(3),)}

    def function(tree, scale):
        return scale * (tree["w"][0] @ tree["x"][0] + tree["w"][1].sin()).square().sum()

    def flat(w, b, x):
        return function({"w": [w, b], "x": (x,)}, 3)

    w, b, x = plain_grads(flat, *tree["w"], *tree["x"])
    expected = {"w": [w, b], "x": (x,)}
    assert_close(grad(function)(tree, 3), expected)
    value, pullback = vjp(lambda tree: function(tree, 3), tree)
    assert_close(value, function(tree, 3))
    assert_close(pullback(torch.ones_like(value)), (expected,))


def test_a_container_that_the_function_changes_is_a_copy():
    tree = {"x": rand(3), "y": [rand(3)]}

    def function(tree):
        tree["x"] = tree["x"] * tree["y"].pop()
        return tree.pop("x").sum()

    assert_close(grad(function)(tree), {"x": tree["y"][0], "y": [tree["x"]]})


def test_keyword_arguments_reach_the_function():
    x, y = rand(3), rand(3)
    assert_close(grad(scalar)(x, y=y), plain_grads(scalar, x, y)[0])


@pytest.mark.parametrize("transform", [grad, grad_and_value])
def test_has_aux(transform):
    x, y = rand(3), rand(3)

    def function(x, y):
        return scalar(x, y), {"double": 2 * x, "unrelated": [torch.arange(3)]}

    result = transform(function, has_aux=True)(x, y)
    expected = plain_grads(scalar, x, y)[0]
    if transform is grad_and_value:
        gradient, (value, returned) = result
        assert_close(value, scalar(x, y))
    else:
        gradient, returned = result
    assert_close(gradient, expected)
    assert_close(returned, {"double": 2 * x, "unrelated": [torch.arange(3)]})
    assert not returned["double"].requires_grad


def test_vjp_has_aux():
    x, cotangent = rand(3), rand(3)
    output, pullback, aux = vjp(lambda x: (x.sin(), x.cos()), x, has_aux=True)
    assert_close((output, aux), (x.sin(), x.cos()))
    assert_close(pullback(cotangent), (cotangent * x.cos(),))
    assert not aux.requires_grad and not output.requires_grad


def test_vjp_of_several_inputs_and_outputs():
    x, y, cotangents = rand(3), rand(3), {"a": rand(3), "b": [rand()]}

    def function(x, y):
        return {"a": x * y.sin(), "b": [(x + y).prod()]}

    x_, y_ = x.clone().requires_grad_(), y.clone().requires_grad_()
    out = function(x_, y_)
    expected = torch.autograd.grad(
        [out["a"], out["b"][0]], (x_, y_), [cotangents["a"], cotangents["b"][0]]
    )
    value, pullback = vjp(function, x, y)
    assert_close(value, function(x, y))
    assert_close(pullback(cotangents), expected)
    assert_close(pullback(cotangents), expected, message="the pullback may be called again")


def test_vjp_of_no_output_element():
    _, pullback = vjp(lambda x: x[:0], rand(3))
    assert_close(pullback(rand(0)), (torch.zeros(3, dtype=torch.float64),))


@pytest.mark.parametrize("function", [lambda x, y: (y * y).sum(), lambda x, y: x.detach().sum()])
def test_unused_inputs_give_zeros(function):
    x, y = rand(3), rand(2)
    assert_close(grad(function)(x, y), torch.zeros_like(x))
    output, pullback = vjp(function, x, y)
    assert_close(pullback(torch.ones_like(output))[0], torch.zeros_like(x))


def test_a_constant_output_gives_zeros():
    x = rand(3)
    assert_close(grad(lambda x: torch.tensor(2.0))(x), torch.zeros_like(x))


def test_the_input_as_the_output():
    x = rand()
    assert_close(grad(lambda x: x)(x), torch.ones_like(x))
    assert_close(vjp(lambda x: x, rand(2))[1](x.expand(2)), (x.expand(2),))


def test_in_place_on_an_intermediate():
    x = rand(3)
    assert_close(grad(lambda x: x.sin().mul_(x).sum())(x), x.cos() * x + x.sin())


def test_in_place_on_the_input_is_refused():
    with pytest.raises(RuntimeError, match="leaf"):
        grad(lambda x: x.mul_(3).square().sum())(rand(3))


def test_nothing_carries_a_graph_when_nobody_needs_it():
    x, y = rand(3), rand(3)
    gradient, value = grad_and_value(scalar, argnums=(0, 1))(x, y)
    output, pullback = vjp(torch.sin, x)
    leaves = [*gradient, value, output, *pullback(x), x, y]
    assert not any(leaf.requires_grad for leaf in leaves)
    assert all(leaf.grad_fn is None for leaf in leaves)


def test_closed_over_parameters_remain_differentiable():
    w, x = rand(3, requires_grad=True), rand(3)

    def function(x, w):
        return (x * w).sin().sum()

    gradient = grad(lambda x: function(x, w))(x)
    assert gradient.requires_grad
    expected = oracle.grad(lambda w: oracle.grad(function)(x, w).square().sum())(w)
    assert_close(torch.autograd.grad(gradient.square().sum(), w)[0], expected.detach())


def test_an_input_that_requires_grad_remains_differentiable():
    x = rand(3, requires_grad=True)
    gradient = grad(lambda x: x.pow(3).sum())(x)
    assert_close(torch.autograd.grad(gradient.sum(), x)[0], (6 * x).detach())
    assert x.grad is None and x.is_leaf


def test_aux_is_linked_to_closed_over_parameters_alone():
    w, x = rand(requires_grad=True), rand()
    _, aux = grad(lambda x: (x * w, x * w), has_aux=True)(x)
    assert_close(torch.autograd.grad(aux, w)[0], x)


def test_a_differentiable_cotangent():
    x, cotangent = rand(3), rand(3, requires_grad=True)
    pulled_back = vjp(torch.sin, x)[1](cotangent)[0]
    assert_close(torch.autograd.grad(pulled_back.sum(), cotangent)[0], x.cos())


def test_no_grad_inside_cuts():
    x = rand(3)

    def function(x):
        with torch.no_grad():
            shift = x.square()
        return (x * shift).sum()

    assert_close(grad(function)(x), x * x)


@pytest.mark.parametrize("view", [lambda x: x.view_as(x), lambda x: x[None], torch.t])
def test_a_view_taken_without_grad_mode_is_constant(view):
    """PyTorch says that it requires grad, though no graph leads from it."""
    x = rand(2, 2)

    def function(x):
        with torch.no_grad():
            return view(x)

    for f in (function, vmap(function), lambda x: (function(x), x.sin())[0]):
        output, pullback = vjp(f, x)
        assert_close(pullback(torch.ones_like(output)), (torch.zeros_like(x),))
        assert_close(jacrev(f)(x), torch.zeros(output.shape + x.shape, dtype=x.dtype))
        assert_close(linearize(f, x)[1](x), torch.zeros_like(output))


def test_no_grad_outside_cuts_only_the_outer_graph():
    x = rand(3, requires_grad=True)
    with torch.no_grad():
        gradient = grad(lambda x: x.sin().sum())(x)
        output, pullback = vjp(torch.sin, x)
        pulled_back = pullback(torch.ones(3, dtype=torch.float64))[0]
    assert_close((gradient, pulled_back), (x.cos().detach(),) * 2)
    assert not gradient.requires_grad and not output.requires_grad


def test_detach_inside():
    x = rand(3)
    assert_close(grad(lambda x: (x.detach() * x).sum())(x), x)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_nested_orders(order):
    x = rand()
    actual, expected = torch.sin, torch.sin
    for _ in range(order):
        actual, expected = grad(actual), oracle.grad(expected)
    assert_close(actual(x), expected(x).detach())


def test_nested_over_closures_does_not_confuse_perturbations():
    x = rand()
    # d/dx x * (d/dy (x + y)) = 1; confusing the two levels gives 2
    assert_close(grad(lambda x: x * grad(lambda y: x + y)(x))(x), torch.ones_like(x))
    assert_close(grad(lambda x: grad(lambda y: x * y * y)(x))(x), 4 * x)


def test_vjp_of_a_pullback():
    x, cotangent, tangent = rand(3), rand(3), rand(3)
    pullback = vjp(torch.sin, x)[1]
    assert_close(vjp(lambda c: pullback(c)[0], cotangent)[1](tangent)[0], tangent * x.cos())


def test_vmap_of_grad_gives_per_sample_gradients():
    x, y, w = rand(4, 3), rand(4), rand(3)

    def loss(w, x, y):
        return (torch.tanh(x @ w) - y).square()

    def per_sample(x, y):
        return plain_grads(lambda w: loss(w, x, y), w)[0]

    # w is unbatched: its gradients may not be summed over the samples
    assert_close(vmap(grad(loss), (None, 0, 0))(w, x, y), loop(per_sample)(x, y))


def test_vmap_over_a_pullback():
    x, cotangents = rand(3), rand(5, 3)
    pullback = vjp(lambda x: x.cumprod(0), x)[1]
    expected = loop(lambda c: oracle.vjp(lambda x: x.cumprod(0), x, c)[1])(cotangents)
    assert_close(vmap(pullback)(cotangents), (expected.detach(),))


def test_grad_of_vmap():
    x, w = rand(4, 3), rand(3)

    def loss(w, mapped):
        return mapped(lambda x: (x * w).sin().prod())(x).square().sum()

    assert_close(grad(lambda w: loss(w, vmap))(w), plain_grads(lambda w: loss(w, loop), w)[0])


class Reversed(torch.autograd.Function):
    """The identity with a backward that nobody would derive from its forward."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, cotangent):
        return -3 * cotangent

    @staticmethod
    def vmap(info, in_dims, x):
        return Reversed.apply(x), in_dims[0]


def test_custom_backward_is_used():
    x = rand(3)
    expected = -3 * x.cos()
    assert_close(grad(lambda x: Reversed.apply(x.sin()).sum())(x), expected)
    assert_close(vmap(grad(lambda x: Reversed.apply(x.sin())))(x), expected)
    assert_close(grad(lambda x: vmap(Reversed.apply)(x.sin()).sum())(x), expected)


def test_complex_inputs():
    z = torch.randn(3, dtype=torch.complex128)
    plain = z.clone().requires_grad_()
    expected = torch.autograd.grad((plain * plain).abs().sum(), plain)[0]
    assert_close(grad(lambda z: (z * z).abs().sum())(z), expected)


def test_inference_mode_is_left_for_the_derivative():
    x = rand(3)
    with torch.inference_mode():
        made_inside = x * 1
        for given in (x, made_inside):
            assert_close(grad(lambda x: x.sin().sum())(given), x.cos())
            assert_close(vmap(grad(torch.sin))(given), x.cos())
        assert torch.is_inference_mode_enabled()


def test_per_sample_gradients_in_inference_mode():
    """What the gradient isn't taken by is saved all the same."""
    weight, x = rand(3), rand(4, 3)
    product = lambda weight, x: (x * weight).sin().sum()
    expected = torch.stack([grad(product)(weight, each) for each in x])
    with torch.inference_mode():
        assert_close(vmap(grad(product), (None, 0))(weight, x), expected)
        closed_over = vmap(lambda x: grad(lambda weight: product(weight, x * 1))(weight))
        assert_close(closed_over(x), expected)
        plain = vmap(product, (None, 0))(weight, x)
    assert plain.is_inference()


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_table_of_bags_that_requires_grad_outside(mode):
    """PyTorch takes an operator without a derivative for a table that doesn't require grad."""
    table, x = rand(3, 2, requires_grad=True), rand(4, 2)

    def bags():
        return torch.nn.functional.embedding_bag(torch.tensor([[0, 1]]), table, mode=mode)

    values = vmap(grad_and_value(lambda x: (bags() * x).sum()))(x)
    expected = bags().expand(4, 2), (bags() * x).sum(1)
    assert_close(values, expected)
    found, wanted = (
        torch.autograd.grad(sum(y.sum() for y in v), table)[0] for v in (values, expected)
    )
    assert_close(found, wanted)
