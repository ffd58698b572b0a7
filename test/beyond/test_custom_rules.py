"""Rules of a program's own: derivatives by them, and as they compose with every transform."""

import pytest
import torch

from functorch_ext import (
    custom_jvp,
    custom_vjp,
    custom_vmap,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stop_gradient,
    vjp,
    vmap,
)
from test.oracle import assert_close, loop, rand


def plain(x):
    return torch.exp(x.sin() * x).cumsum(-1)


@custom_vjp
def by_vjp(x):
    return plain(x)


def _fwd(x):
    inner = x.sin() * x
    return plain(x), {"inner": inner, "x": (x,)}


def _bwd(residuals, cotangent):
    (x,) = residuals["x"]
    summed = cotangent.flip(-1).cumsum(-1).flip(-1)
    return (summed * residuals["inner"].exp() * (x.cos() * x + x.sin()),)


by_vjp.defvjp(_fwd, _bwd)


@custom_vjp
def by_itself(x):
    return plain(x)


by_itself.defvjp(lambda x: (by_itself(x), _fwd(x)[1]), _bwd)


@custom_jvp
def by_jvp(x):
    return plain(x)


@by_jvp.defjvp
def _rule(primals, tangents):
    (x,), (t,) = primals, tangents
    inner = x.sin() * x
    return by_jvp(x), (inner.exp() * (x.cos() * x + x.sin()) * t).cumsum(-1)


@custom_vmap
def by_vmap(x):
    return plain(x)


@by_vmap.def_vmap
def _mapped(axis_size, in_batched, x):
    assert in_batched == [True] and x.shape[0] == axis_size
    return by_vmap(x), True


X = rand(3, 4)
V = rand(3, 4)


def total(f):
    return lambda x: f(x).sin().sum()


COMPOSITIONS = {
    "call": lambda f: f(X),
    "vmap": lambda f: vmap(f)(X),
    "vmap 1": lambda f: vmap(f, 1, 1)(X),
    "vmap vmap": lambda f: vmap(vmap(f))(X.reshape(3, 2, 2)),
    "grad": lambda f: grad(total(f))(X),
    "jvp": lambda f: jvp(f, (X,), (V,)),
    "vjp": lambda f: vjp(f, X)[1](V),
    "linearize": lambda f: linearize(f, X)[1](V),
    "jacrev": lambda f: jacrev(f)(X[0]),
    "jacfwd": lambda f: jacfwd(f)(X[0]),
    "hessian": lambda f: hessian(total(f))(X[0]),
    "jacrev jacrev": lambda f: jacrev(jacrev(f))(X[0]),
    "jacfwd jacfwd": lambda f: jacfwd(jacfwd(f))(X[0]),
    "grad of jvp": lambda f: grad(lambda x: jvp(total(f), (x,), (V,))[1])(X),
    "jvp of grad": lambda f: jvp(grad(total(f)), (X,), (V,)),
    "jvp of jvp": lambda f: jvp(lambda x: jvp(f, (x,), (V,))[1], (X,), (V,)),
    "vmap of grad": lambda f: vmap(grad(total(f)))(X),
    "grad of vmap": lambda f: grad(lambda x: vmap(f)(x).sin().sum())(X),
    "jvp of vmap": lambda f: jvp(vmap(f), (X,), (V,)),
    "vmap of jvp": lambda f: vmap(lambda x, v: jvp(f, (x,), (v,)))(X, V),
    "vmap of hessian": lambda f: vmap(hessian(total(f)))(X),
    "grad of vmap of grad": lambda f: grad(lambda x: vmap(grad(total(f)))(x).sin().sum())(X),
    "third": lambda f: grad(grad(grad(lambda x: f(x[None]).sum())))(X[0, 0]),
    "autograd": lambda f: torch.autograd.grad(
        f(x := X.clone().requires_grad_()).sin().sum(), x, create_graph=True
    )[0].detach(),
}


@pytest.mark.parametrize(
    "function", [by_vjp, by_itself, by_jvp, by_vmap], ids=["vjp", "itself", "jvp", "vmap"]
)
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_derivatives_by_the_rule_are_those_of_the_function(name, function):
    assert_close(COMPOSITIONS[name](function), COMPOSITIONS[name](plain))


def scaled(by, func=lambda x: x * 1):
    """The identity, whose derivative is said to be `by`."""
    vjp_form = custom_vjp(func)
    vjp_form.defvjp(lambda x: (func(x), None), lambda _, ct: (by * ct,))
    jvp_form = custom_jvp(func)
    jvp_form.defjvp(lambda primals, tangents: (primals[0], by * tangents[0]))
    return vjp_form, jvp_form


def returned(x):
    return x


@pytest.mark.parametrize("func", [lambda x: x * 1, returned], ids=["computed", "returned"])
def test_the_rule_decides(func):
    for f in scaled(5.0, func):
        assert_close(grad(lambda x: f(x).sum())(X), torch.full_like(X, 5.0))
        assert_close(jvp(f, (X,), (V,))[1], 5 * V)
        assert_close(vmap(grad(lambda x: f(x).sum()))(X), torch.full_like(X, 5.0))
        assert_close(grad(lambda x: vmap(f)(x).sum())(X), torch.full_like(X, 5.0))
        assert_close(vmap(lambda x, v: jvp(f, (x,), (v,))[1])(X, V), 5 * V)
        # Its own derivative is a constant's.
        assert_close(grad(grad(lambda x: f(x) ** 2))(X[0, 0]), torch.tensor(50.0).double())


def test_containers_constants_and_functions_as_arguments():
    def func(power, tree, apply, scale=2.0):
        return {"out": apply(tree["a"]) ** power * scale, "n": (tree["b"][0] * 3,), "what": "text"}

    by = custom_vjp(func, nondiff_argnums=(0, 2))

    def fwd(power, tree, apply, scale):
        return func(power, tree, apply, scale), (tree["a"], scale, "kept")

    def bwd(power, apply, residuals, cotangent):
        a, scale, word = residuals
        assert word == "kept" and cotangent["what"] is None
        pulled = vjp(lambda a: apply(a) ** power * scale, a)[1](cotangent["out"])[0]
        return {"a": pulled, "b": [3 * cotangent["n"][0]]}, None

    by.defvjp(fwd, bwd)
    tree = {"a": rand(3).abs(), "b": [rand(2)]}

    def loss(f, tree):
        result = f(3, tree, torch.sin)
        assert result["what"] == "text"
        return (result["out"] ** 2).sum() + result["n"][0].prod()

    assert_close(grad(lambda t: loss(by, t))(tree), grad(lambda t: loss(func, t))(tree))
    many = {"a": rand(4, 3), "b": [rand(4, 2)]}
    expected = loop(grad(lambda t: loss(func, t)))(many)
    assert_close(vmap(grad(lambda t: loss(by, t)))(many), expected)
    assert by.__name__ == "func"
    assert_close(by(3, tree=tree, apply=torch.sin)["out"], func(3, tree, torch.sin)["out"])


def test_only_what_is_differentiated_is_pulled_back():
    f = custom_jvp(torch.mul)
    f.defjvps(lambda t, out, x, y: t * y, lambda t, out, x, y: 2 * x * t)  # 2 shows the rule
    x, y = rand(3), rand(3)
    assert_close(grad(lambda y: f(x, y).sum())(y), 2 * x)
    assert_close(grad(lambda x, y: f(x, y).sum(), argnums=(0, 1))(x, y), (y, 2 * x))
    assert_close(jvp(lambda y: f(x, y), (y,), (x,))[1], 2 * x * x)
    assert_close(hessian(lambda y: f(x, y.sin()).sum())(y), -2 * torch.diag(x * y.sin()))


def test_of_methods():
    class Layer:
        scale = 3.0

        @custom_jvp
        def __call__(self, x):
            return self.scale * x

        @__call__.defjvp
        def _rule(primals, tangents):
            return primals[0].scale * primals[1], 7 * tangents[1]

    assert_close(grad(Layer())(X[0, 0]), torch.tensor(7.0).double())


def test_stop_gradient():
    def f(x):
        return (x.sin() * stop_gradient({"c": x.cos()})["c"]).sum()

    expected = X.cos() ** 2
    assert_close(grad(f)(X), expected)
    assert_close(jvp(f, (X,), (V,))[1], (expected * V).sum())
    assert_close(vmap(grad(f))(X), expected)
    assert_close(grad(lambda x: vmap(f)(x).sum())(X), expected)
    assert_close(jvp(vmap(f), (X,), (V,))[1], (expected * V).sum(-1))
    assert_close(hessian(f)(X[0]), torch.diag(-X[0].sin() * X[0].cos()))
    assert_close(jacfwd(lambda x: stop_gradient(x) * 2)(X[0]), torch.zeros(4, 4).double())


def test_a_batching_rule_decides():
    seen = []

    @custom_vmap
    def f(x, tree):
        return x * tree["w"], tree["w"].sum()

    @f.def_vmap
    def rule(axis_size, in_batched, x, tree):
        seen.append((axis_size, in_batched))
        return (100 * x * tree["w"], tree["w"].sum()), (True, False)

    w = rand(4)
    got = vmap(lambda x: f(x, {"w": w}), out_dims=(0, None))(X)
    assert_close(got, (100 * X * w, w.sum()))
    assert seen == [(3, [True, {"w": False}])]
    assert_close(f(X[0], {"w": w}), (X[0] * w, w.sum()))
    # Around the map the rule is differentiated, inside it the function.
    assert_close(
        grad(lambda x: vmap(lambda x: f(x, {"w": w})[0])(x).sum())(X), 100 * w.expand(3, 4)
    )
    assert_close(vmap(grad(lambda x: f(x, {"w": w})[0].sum()))(X), w.expand(3, 4))


def test_a_function_with_rules_of_two_kinds():
    by_five = scaled(5.0)[0]
    both = custom_vmap(by_five)
    both.def_vmap(lambda size, batched, x: (by_five(x), True))
    assert_close(grad(lambda x: both(x).sum())(X), torch.full_like(X, 5.0))
    assert_close(vmap(grad(lambda x: both(x).sum()))(X), torch.full_like(X, 5.0))


def test_defaults_and_keywords():
    def func(x, y=2.0, *, scale=None):
        return x * y

    plain = custom_vjp(lambda x, y=2.0, z=3.0: x * y * z)
    plain.defvjp(lambda x, y, z: (x * y * z, y * z), lambda r, c: (7 * r * c, None, None))
    for args, expected in (((), 42.0), ((5.0,), 105.0), ((5.0, 1.0), 35.0)):
        assert_close(grad(lambda x: plain(x, *args))(torch.tensor(1.0)), torch.tensor(expected))
    assert_close(grad(lambda x: plain(x, z=1.0))(torch.tensor(1.0)), torch.tensor(14.0))
    with pytest.raises(TypeError, match="takes no keyword-only arguments, but got scale"):
        custom_vmap(func)(X)
    with pytest.raises(TypeError, match="too many positional arguments"):
        plain(X, 1.0, 2.0, 3.0)


@pytest.mark.parametrize("make", [custom_vjp, custom_jvp, custom_vmap])
def test_without_a_rule(make):
    f = make(torch.sin)
    with pytest.raises(AttributeError, match="has no rule yet"):
        vmap(grad(f))(X[0])


def test_rules_that_return_something_else():
    f = custom_vjp(lambda x, y: x * y)
    f.defvjp(lambda x, y: (x * y, (x, y)), lambda residuals, ct: ct)
    with pytest.raises(TypeError, match="must return a tuple of 2, one entry per differentiable"):
        grad(f)(X[0, 0], X[0, 1])
    f.defvjp(lambda x, y: (x * y, (x, y)), lambda residuals, ct: ({"a": ct}, ct))
    with pytest.raises(TypeError, match="structure as the argument's for entry 0"):
        grad(f)(X[0, 0], X[0, 1])
    f.defvjp(lambda x, y: x * y, None)
    with pytest.raises(TypeError, match="pair of the output and the residuals"):
        grad(f)(X[0, 0], X[0, 1])
    g = custom_jvp(torch.sin)
    g.defjvp(lambda primals, tangents: (primals[0], tangents))
    with pytest.raises(TypeError, match="the structure that the function returns"):
        jvp(g, (X,), (V,))
    h = custom_vmap(lambda x: x)
    h.def_vmap(lambda size, batched, x: x)
    with pytest.raises(TypeError, match="pair of the output and out_batched"):
        vmap(h)(X)
