"""Products with curvature matrices, against the matrices themselves made by plain autograd."""

import pytest
import torch

from functorch_ext import (
    fisher_vp,
    functional_call,
    ggnvp,
    grad,
    hessian,
    hvp,
    jacrev,
    jvp,
    linearize,
    vhp,
    vjp,
    vmap,
)
from test.oracle import assert_close, loop, rand

HESSIAN_PRODUCTS = pytest.mark.parametrize("product", [hvp, vhp])


def energy(x):
    return (x.sin() * x.prod() + x**3).sum()


def plain_hessian(function, x):
    return torch.autograd.functional.hessian(function, x)


def plain_jacobian(function, x):
    return torch.autograd.functional.jacobian(function, x)


@HESSIAN_PRODUCTS
def test_is_the_product_with_the_hessian(product):
    x, v = rand(5), rand(5)
    assert_close(product(energy)(x, v), plain_hessian(energy, x) @ v)


@HESSIAN_PRODUCTS
def test_containers_argnums_and_keywords(product):
    def function(scale, tree, *, power):
        return (scale * tree["a"].sum() * tree["b"][0] ** power).sum()

    tree = {"a": rand(3), "b": [rand(2)]}
    v = {"a": rand(3), "b": [rand(2)]}
    scale, w = rand(2), rand(2)
    got = product(function, argnums=(1, 0))(scale, tree, (v, w), power=3)

    def flat(z):
        return function(z[5:], {"a": z[:3], "b": [z[3:5]]}, power=3)

    z = torch.cat([tree["a"], tree["b"][0], scale])
    expected = plain_hessian(flat, z) @ torch.cat([v["a"], v["b"][0], w])
    assert_close(got, ({"a": expected[:3], "b": [expected[3:5]]}, expected[5:]))


@HESSIAN_PRODUCTS
def test_many_vectors_at_a_point_that_is_evaluated_once(product):
    calls = []

    def function(x):
        calls.append(1)
        return energy(x)

    x, vectors = rand(4), rand(6, 4)
    at = product(function).at(x)
    before = len(calls)
    many = vmap(at)(vectors)
    one = at(vectors[0])
    assert_close(many, vectors @ plain_hessian(energy, x))
    assert_close(one, many[0])
    assert product is vhp or before == len(calls) == 1


@HESSIAN_PRODUCTS
def test_nests_in_every_transform(product):
    x, v, w = rand(3, 4), rand(3, 4), rand(4)
    expected = lambda x, v: plain_hessian(energy, x) @ v
    assert_close(vmap(product(energy))(x, v), loop(expected)(x, v))
    inner = lambda x: product(energy)(x, w) @ w
    third = lambda x: torch.autograd.functional.jacobian(
        lambda x: torch.autograd.functional.hvp(energy, x, w, create_graph=True)[1] @ w, x
    )
    assert_close(grad(inner)(x[0]), third(x[0]))
    assert_close(vmap(grad(inner))(x), loop(third)(x))
    assert_close(jvp(inner, (x[0],), (v[0],))[1], third(x[0]) @ v[0])
    assert_close(jacrev(lambda w: product(energy)(x[0], w))(w), plain_hessian(energy, x[0]))
    assert_close(hessian(inner)(x[0]), hessian(lambda x: hessian(energy)(x) @ w @ w)(x[0]))


@HESSIAN_PRODUCTS
def test_a_linear_function_has_no_curvature(product):
    assert_close(product(lambda x: x.sum())(rand(3), rand(3)), torch.zeros(3).double())


@HESSIAN_PRODUCTS
def test_a_result_can_be_differentiated_by_plain_autograd(product):
    x = rand(4, requires_grad=True)
    v = rand(4)
    (got,) = torch.autograd.grad(product(energy)(x, v).sum(), x)
    reference = torch.autograd.functional.hvp(energy, x, v, create_graph=True)[1].sum()
    (expected,) = torch.autograd.grad(reference, x)
    assert_close(got, expected)


def network():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    model.double()
    inputs = rand(5, 3)
    parameters = {name: each.detach() for name, each in model.named_parameters()}
    return parameters, lambda parameters: functional_call(model, parameters, (inputs,))


def flat_network():
    """The same network as a function of one vector, which plain autograd can take."""
    parameters, model = network()
    sizes = [each.numel() for each in parameters.values()]

    def tree(vector):
        parts = zip(parameters.items(), vector.split(sizes))
        return {name: part.reshape(each.shape) for (name, each), part in parts}

    vector = torch.cat([each.flatten() for each in parameters.values()])
    return vector, lambda vector: model(tree(vector))


def cross_entropy(output):
    targets = torch.arange(len(output)) % 2
    return torch.nn.functional.cross_entropy(output, targets, reduction="sum")


def naive_gauss_newton(model, curvature, x):
    jacobian = plain_jacobian(model, x)
    jacobian = jacobian.reshape(-1, x.numel())
    output = model(x)
    inner = curvature(output).reshape(output.numel(), output.numel())
    return jacobian.T @ inner @ jacobian


def test_generalized_gauss_newton():
    x, model = flat_network()
    v = torch.randn_like(x)
    matrix = naive_gauss_newton(model, lambda z: plain_hessian(cross_entropy, z), x)
    assert_close(ggnvp(model, cross_entropy)(x, v), matrix @ v)
    vectors = rand(7, x.numel())
    assert_close(vmap(ggnvp(model, cross_entropy).at(x))(vectors), vectors @ matrix)


def test_the_fisher_information_of_a_softmax_is_its_gauss_newton_matrix():
    x, model = flat_network()
    v = torch.randn_like(x)
    categorical = lambda z: torch.distributions.Categorical(logits=z)
    matrix = naive_gauss_newton(model, lambda z: plain_hessian(cross_entropy, z), x)
    assert_close(fisher_vp(model, categorical)(x, v), matrix @ v)


def test_the_fisher_information_is_the_covariance_of_the_score():
    x, model = flat_network()
    v = torch.randn_like(x)
    distribution = lambda z: torch.distributions.Bernoulli(logits=z)
    output = model(x)
    p = output.sigmoid().flatten()
    jacobian = plain_jacobian(model, x).reshape(-1, x.numel())
    # The score of a coin by its logit is outcome - p, whose variance is p (1 - p).
    expected = jacobian.T @ ((p * (1 - p)) * (jacobian @ v))
    assert_close(fisher_vp(model, distribution)(x, v), expected)


def test_gauss_newton_of_parameters_in_a_dict_under_transforms():
    parameters, model = network()
    v = {name: torch.randn_like(each) for name, each in parameters.items()}
    product = ggnvp(model, cross_entropy)
    by_parts = lambda p, v: _gauss_newton_by_parts(model, cross_entropy, p, v)
    assert_close(product(parameters, v), by_parts(parameters, v))
    quadratic = lambda product: lambda p: sum((product(p, v)[name] * v[name]).sum() for name in v)
    assert_close(grad(quadratic(product))(parameters), grad(quadratic(by_parts))(parameters))
    stacked = {name: torch.stack([each, each + 1]) for name, each in parameters.items()}
    expected = [by_parts({name: each[i] for name, each in stacked.items()}, v) for i in range(2)]
    got = vmap(product, in_dims=(0, None))(stacked, v)
    for i in range(2):
        assert_close({name: each[i] for name, each in got.items()}, expected[i])


def _gauss_newton_by_parts(model, loss, parameters, v):
    output, push = linearize(model, parameters)
    pushed = push(v)
    weighted = jvp(grad(loss), (output,), (pushed,))[1]
    return vjp(model, parameters)[1](weighted)[0]


@HESSIAN_PRODUCTS
def test_errors_name_the_transform(product):
    name = product.__name__
    with pytest.raises(RuntimeError, match=f"{name}: Expected f.*scalar"):
        product(torch.sin)(rand(3), rand(3))
    with pytest.raises(RuntimeError, match=rf"{name}: tangent 0 .* expected \(3,\)"):
        product(energy)(rand(3), rand(4))
    with pytest.raises(TypeError, match=f"{name}: expected the arguments .* and then the vector"):
        product(energy)(rand(3))
    with pytest.raises(RuntimeError, match=f"{name}: Got argnum=1"):
        product(energy, argnums=1)(rand(3), rand(3))


def test_errors_name_what_was_called():
    x = torch.ones(3)
    with pytest.raises(RuntimeError, match="functorch_ext.ggnvp: Expected f.*scalar"):
        ggnvp(torch.sin, torch.sin)(x, x)
    with pytest.raises(TypeError, match="fisher_vp: distribution has to make .* returned a Tensor"):
        fisher_vp(torch.sin, torch.sin)(x, x)
