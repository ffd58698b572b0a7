"""jvp and linearize against the derivative of plain autograd's pullback."""

import subprocess
import sys

import pytest
import torch
import torch.autograd.forward_ad as forward_ad

from functorch_ext import functionalize, grad, jacfwd, jvp, linearize, vjp, vmap
from test import oracle
from test.oracle import assert_close, loop, rand


def mixing(x):
    """Every output depends on every input."""
    return (x.cumsum(0) * x.flip(0)).sin() + x.prod()


def plain_jvp(function, x, tangent):
    return tuple(part.detach() for part in oracle.jvp(function, x, tangent))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (0,)])
def test_one_input(shape):
    x, tangent = rand(*shape), rand(*shape)
    function = (lambda x: x.exp().sin()) if len(shape) != 1 else mixing
    assert_close(jvp(function, (x,), (tangent,)), plain_jvp(function, x, tangent))


def test_finite_differences():
    x, tangent, step = rand(4), rand(4), 1e-6
    difference = (mixing(x + step * tangent) - mixing(x - step * tangent)) / (2 * step)
    assert_close(jvp(mixing, (x,), (tangent,))[1], difference, tolerance=1e-6)


def test_pytrees():
    primal = {"w": [rand(2, 3), rand(2)]}, rand(3)
    tangent = {"w": [rand(2, 3), rand(2)]}, rand(3)

    def function(tree, x):
        return {"out": (tree["w"][0] @ x).sin(), "parts": (tree["w"][1] * x.sum(), x)}

    def flat(step):
        tree = {"w": [p + step * t for p, t in zip(primal[0]["w"], tangent[0]["w"], strict=True)]}
        return function(tree, primal[1] + step * tangent[1])

    value, pushed = jvp(function, primal, tangent)
    assert_close(value, function(*primal))
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    assert_close(pushed["out"], plain_jvp(lambda s: flat(s)["out"], zero, one)[1])
    assert_close(pushed["parts"][0], plain_jvp(lambda s: flat(s)["parts"][0], zero, one)[1])
    assert_close(pushed["parts"][1], tangent[1])


def test_has_aux():
    x, tangent = rand(3), rand(3)
    value, pushed, aux = jvp(lambda x: (x.sin(), {"a": x.cos()}), (x,), (tangent,), has_aux=True)
    assert_close((value, pushed, aux), (x.sin(), x.cos() * tangent, {"a": x.cos()}))
    assert forward_ad._current_level < 0


def test_an_independent_output_has_a_zero_tangent():
    x, y = rand(3), rand(2)
    value, pushed = jvp(lambda x: (x, y), (x,), (x,))
    assert_close((value, pushed), ((x, y), (x, torch.zeros_like(y))))


def test_strict_refuses_an_independent_output():
    x, y = rand(3), rand(2)
    with pytest.raises(RuntimeError, match="independent"):
        jvp(lambda x: (x, y), (x,), (x,), strict=True)
    assert_close(jvp(torch.sin, (x,), (x,), strict=True), (x.sin(), x * x.cos()))


def test_views_and_in_place():
    x, tangent = rand(3, 3), rand(3, 3)

    def function(x):
        x = x.clone()
        row = x[1].clone()
        x[0].mul_(row)
        x.T[2] = row.sin()
        return x.diagonal()

    assert_close(jvp(function, (x,), (tangent,)), plain_jvp(function, x, tangent))


def test_detach_and_no_grad():
    x, tangent = rand(3), rand(3)
    assert_close(jvp(lambda x: x * x.detach(), (x,), (tangent,))[1], x * tangent)
    with torch.no_grad():
        assert_close(jvp(torch.sin, (x,), (tangent,))[1], x.cos() * tangent)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_nested_orders(order):
    x = rand(3)

    def push(jvp, function):
        return lambda x: jvp(function, (x,), (x.cos(),))[1]

    def plain_push(function):
        return lambda x: oracle.jvp(function, x, x.cos())[1]

    actual, expected = mixing, mixing
    for _ in range(order):
        actual, expected = push(jvp, actual), plain_push(expected)
    assert_close(actual(x), expected(x).detach())


def test_nested_does_not_confuse_perturbations():
    x, one = rand(), torch.ones((), dtype=torch.float64)

    def inner(x):
        return x * jvp(lambda y: x + y, (x,), (one,))[1]

    # d/dx x * (d/dy (x + y)) = 1; confusing the two levels gives 2
    assert_close(jvp(inner, (x,), (one,))[1], one)
    assert_close(jvp(lambda x: jvp(lambda y: x * y * y, (x,), (one,))[1], (x,), (one,))[1], 4 * x)


def test_a_tangent_that_depends_on_an_outer_input():
    x, tangent = rand(3), rand(3)

    def hessian_vector(jvp):
        return lambda x: jvp(torch.sin, (x,), (x * x,))[1]

    expected = plain_jvp(lambda x: oracle.jvp(torch.sin, x, x * x)[1], x, tangent)
    assert_close(jvp(hessian_vector(jvp), (x,), (tangent,)), expected)


def test_forward_over_reverse_and_reverse_over_forward():
    x, tangent = rand(3), rand(3)

    def total(x):
        return mixing(x).sum()

    expected = (oracle.hessian(total)(x) @ tangent).detach()
    assert_close(jvp(grad(total), (x,), (tangent,))[1], expected)
    assert_close(grad(lambda x: jvp(total, (x,), (tangent,))[1])(x), expected)


def test_jvp_of_a_pullback():
    x, cotangent, tangent = rand(3), rand(3), rand(3)
    pullback = vjp(mixing, x)[1]
    _, pushed = jvp(lambda c: pullback(c)[0], (cotangent,), (tangent,))
    assert_close(pushed, oracle.vjp(mixing, x, tangent)[1].detach())


def test_with_vmap():
    x, tangents = rand(3), rand(4, 3)
    one_by_one = loop(lambda t: plain_jvp(mixing, x, t)[1])(tangents)
    assert_close(vmap(lambda t: jvp(mixing, (x,), (t,))[1])(tangents), one_by_one)
    xs = rand(4, 3)
    per_sample = loop(lambda x, t: plain_jvp(mixing, x, t))(xs, tangents)
    assert_close(vmap(lambda x, t: jvp(mixing, (x,), (t,)))(xs, tangents), per_sample)
    assert_close(jvp(vmap(mixing), (xs,), (tangents,)), per_sample)


def test_outputs_stay_differentiable_when_the_input_requires_grad():
    x, tangent = rand(3, requires_grad=True), rand(3)
    value, pushed = jvp(torch.sin, (x,), (tangent,))
    gradients = torch.autograd.grad(value.sum() + pushed.sum(), x)[0]
    assert_close(gradients, (x.cos() - x.sin() * tangent).detach())


def test_closed_over_parameters_remain_differentiable():
    w, x, tangent = rand(3, requires_grad=True), rand(3), rand(3)
    _, pushed = jvp(lambda x: (w * x).sin(), (x,), (tangent,))
    expected = torch.autograd.grad(((w * x).cos() * w * tangent).sum(), w)
    assert_close(torch.autograd.grad(pushed.sum(), w), expected)


def test_inside_a_users_dual_level():
    x, tangent = rand(3), rand(3)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, tangent)
        outer = forward_ad.unpack_dual(dual.sin())
    assert_close(jvp(torch.sin, (x,), (tangent,)), (outer.primal, outer.tangent))


def test_complex_inputs():
    z, tangent = rand(3, dtype=torch.complex128), rand(3, dtype=torch.complex128)
    assert_close(jvp(torch.square, (z,), (tangent,)), (z * z, 2 * z * tangent))


def test_linearize():
    x = rand(3)
    value, pushforward = linearize(mixing, x)
    assert_close(value, mixing(x))
    for _ in range(3):
        tangent = rand(3)
        assert_close(pushforward(tangent), plain_jvp(mixing, x, tangent)[1])


def test_linearize_of_trees():
    x, y, tangents = rand(3), rand(3), (rand(3), {"y": rand(3)})

    def function(x, tree):
        return {"a": x * tree["y"], "b": [tree["y"].exp()]}

    value, pushforward = linearize(function, x, {"y": y})
    assert_close(value, function(x, {"y": y}))
    expected = {"a": tangents[0] * y + x * tangents[1]["y"], "b": [y.exp() * tangents[1]["y"]]}
    assert_close(pushforward(*tangents), expected)


def test_linearize_runs_the_function_once():
    calls = []
    _, pushforward = linearize(lambda x: calls.append(1) or x.sin(), rand(3))
    once = len(calls)
    pushforward(rand(3))
    pushforward(rand(3))
    assert len(calls) == once


def test_vmap_of_a_linearized_function():
    x, tangents = rand(3), rand(5, 3)
    pushforward = linearize(mixing, x)[1]
    expected = loop(lambda t: plain_jvp(mixing, x, t)[1])(tangents)
    assert_close(vmap(pushforward)(tangents), expected)


def test_derivatives_that_pytorch_decomposes_are_there_without_other_imports():
    program = """
import torch, functorch_ext
x, y = torch.randn(2, 3, dtype=torch.float64), torch.tensor([0, 2])
loss = lambda x: torch.nn.functional.cross_entropy(x, y)
plain = torch.autograd.functional.hessian(loss, x)
torch.testing.assert_close(functorch_ext.hessian(loss)(x), plain)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_primals_whose_elements_lie_in_one_place():
    x, tangent = rand(3), rand(2, 2)
    shared = x.as_strided((2, 2), (1, 1))
    expected = oracle.jacobian(lambda x: x * x.sum())(shared.clone())
    assert_close(jacfwd(lambda x: x * x.sum())(shared), expected)
    assert_close(jvp(lambda x: x * x, (shared,), (tangent,))[1], 2 * shared * tangent)
    xs = rand(4, 3).as_strided((4, 2, 2), (3, 1, 1))
    mapped = vmap(lambda x: jvp(lambda x: x * x, (x,), (tangent,))[1])(xs)
    assert_close(mapped, 2 * xs * tangent)


def test_expanded_primals():
    """Several elements of one are one in memory, those of its tangent are not."""
    x, tangent = rand(1, 2).expand(3, 2), rand(3, 2)
    assert_close(jvp(torch.sin, (x,), (tangent,))[1], x.cos() * tangent)
    assert_close(jacfwd(torch.sin)(x), oracle.jacobian(torch.sin)(x))
    inner = lambda x: jvp(torch.sin, (x.expand(2, 3),), (x.expand(2, 3).cos(),))[1]
    xs = rand(4, 3)
    assert_close(vmap(inner)(xs), loop(lambda x: (x.cos() * x.cos()).expand(2, 3))(xs))
    assert_close(jvp(inner, (xs[0],), (xs[1],))[1], (-xs[0].mul(2).sin() * xs[1]).expand(2, 3))


COPIES = {
    "frac": torch.frac,
    "view_copy": lambda x: torch.view_copy(x, (-1,)),
    "t_copy": torch.t_copy,
    "permute_copy": lambda x: torch.permute_copy(x, (1, 0)),
    "unsqueeze_copy": lambda x: torch.unsqueeze_copy(x, 0),
    "squeeze_copy": torch.squeeze_copy,
    "expand_copy": lambda x: torch.expand_copy(x, (2, 3)),
    "alias_copy": torch.alias_copy,
}


@pytest.mark.parametrize("name", COPIES)
def test_writes_to_a_copy_leave_the_tangent_of_its_source_alone(name):
    """PyTorch's formulas let the two tangents share memory."""

    def function(x):
        copy = COPIES[name](x)
        copy.mul_(2)
        return x.sin(), copy

    x, tangent = rand(2, 3), rand(2, 3)
    pushed = jvp(function, (x,), (tangent,))[1]
    assert_close(
        pushed, (x.cos() * tangent, 2 * COPIES[name](tangent) if name != "frac" else 2 * tangent)
    )
    xs, tangents = rand(4, 2, 3), rand(4, 2, 3)
    pushed = vmap(lambda x, t: jvp(function, (x,), (t,))[1][0])(xs, tangents)
    assert_close(pushed, xs.cos() * tangents)


IN_PLACE = {
    "sin_": lambda z: z.sin_(),
    "mul_ by its sum": lambda z: z.mul_(z.sum()),
    "copy_": lambda z: z.copy_(2 * z),
    "an element": lambda z: z[0].copy_(z.sum() ** 2),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_under_two_jvps(name):
    """The formula writes to a tangent that is a constant of the outer one."""

    def function(x):
        z = x.clone()
        IN_PLACE[name](z)
        return z * z

    x, inner, outer = rand(3), rand(3), rand(3)
    by_ours = jvp(lambda x: jvp(function, (x,), (inner,))[1], (x,), (outer,))[1]
    expected = oracle.jvp(lambda x: oracle.jvp(function, x, inner)[1], x, outer)[1]
    assert_close(by_ours, expected)
    total = lambda x: jvp(grad(lambda x: function(x).sum()), (x,), (inner,))[1]
    plain = lambda x: oracle.jvp(oracle.grad(lambda x: function(x).sum()), x, inner)[1]
    assert_close(jvp(total, (x,), (outer,))[1], oracle.jvp(plain, x, outer)[1])
    by_columns = jvp(jacfwd(function), (x,), (outer,))[1]
    assert_close(by_columns, oracle.jvp(oracle.jacobian(function), x, outer)[1])


INNER_LEVELS = {
    "vmap": lambda f: lambda a, x: tuple(y[0] for y in vmap(lambda b: f(a, b))(x[None])),
    "functionalize": lambda f: functionalize(f),
    "jvp": lambda f: lambda a, x: jvp(lambda b: f(a, b), (x,), (x.cos(),))[0],
}
BY_TENSORS = {
    "clamp from below": lambda a, x: a.clamp(x),
    "clamp from above": lambda a, x: a.clamp(max=x),
    "clamp": lambda a, x: a.clamp(x, x + 1),
}


@pytest.mark.parametrize("level", INNER_LEVELS)
@pytest.mark.parametrize("name", BY_TENSORS)
def test_clamp_of_a_tensor_of_another_plane(name, level):
    """The formula asks for the primal of what is clamped, which has none on the inner plane."""
    function = BY_TENSORS[name]
    pushed = lambda a, x: jvp(lambda x: function(a, x), (x,), (x.sin(),))
    a, x = rand(3, 4), rand(3, 4)
    expected = [oracle.jvp(lambda x, a=a_: function(a, x), x_, x_.sin()) for a_, x_ in zip(a, x)]
    actual = vmap(INNER_LEVELS[level](pushed))(a, x)
    assert_close(actual, tuple(map(torch.stack, zip(*expected, strict=True))))
