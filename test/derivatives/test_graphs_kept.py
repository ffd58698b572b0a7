"""Results of transforms keep autograd's graph only where somebody outside can differentiate them."""

import itertools
import weakref

import pytest
import torch

from functorch_ext import (
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    vjp,
    vmap,
)
from test.oracle import assert_close, rand

X = torch.tensor([0.3, -0.7], dtype=torch.float64)


def sum_of_gradient_and_value(f):
    def call(x):
        gradient, value = grad_and_value(lambda x: f(x).sum())(x)
        return gradient + value

    return call


def pulled_back(f):
    def call(x):
        output, pullback = vjp(f, x)
        return pullback(x.exp())[0] + output

    return call


def pushed_forward(f):
    return lambda x: sum(jvp(f, (x,), (x.exp(),)))


def linearized(f):
    def call(x):
        output, push_forward = linearize(f, x)
        return output + push_forward(x.exp())

    return call


def by_torch(f):
    def total(x):
        return torch.autograd.grad(f(x).square().sum(), x, create_graph=True)[0].sum()

    return grad(total)


# Of functions from vectors to vectors of the same size.
TRANSFORMS = {
    "grad": lambda f: grad(lambda x: f(x).sum()),
    "grad_and_value": sum_of_gradient_and_value,
    "vjp": pulled_back,
    "jvp": pushed_forward,
    "jacrev": lambda f: lambda x: jacrev(f)(x).sum(0),
    "jacfwd": lambda f: lambda x: jacfwd(f)(x).sum(0),
    "hessian": lambda f: lambda x: hessian(lambda x: f(x).sum())(x).sum(0),
    "linearize": linearized,
    "torch.autograd": by_torch,
}


PAIRS = list(itertools.product(TRANSFORMS, repeat=2))


def result(names, x=X):
    """Each transform by a variable of its own, all of them at `x`; the outermost first."""

    def value(names, variables):
        if not names:
            return torch.stack(variables).sum(0).sin() * torch.stack(variables).prod(0)
        return TRANSFORMS[names[0]](lambda y: value(names[1:], (*variables, y)))(x)

    return value(names, ())


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_pairs(names):
    actual = result(names)
    assert not actual.requires_grad
    connected = result(names, X.clone().requires_grad_())
    assert connected.requires_grad
    assert_close(connected.detach(), actual)


@pytest.mark.parametrize("outer", TRANSFORMS)
def test_triples(outer):
    for names in itertools.product([outer], TRANSFORMS, TRANSFORMS):
        assert not result(names).requires_grad, names


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_in_vmap(names):
    xs = torch.stack([X, X * 0.5, X + 1])
    actual = vmap(lambda x: result(names, x))(xs)
    assert not actual.requires_grad
    assert_close(actual, torch.stack([result(names, x) for x in xs]))


@pytest.mark.parametrize("inner", TRANSFORMS)
@pytest.mark.parametrize("outer", TRANSFORMS)
def test_what_is_differentiated_outside_stays_differentiable(outer, inner):
    scale = torch.tensor([1.5, 2.0], dtype=torch.float64, requires_grad=True)

    def func(scale):
        f = lambda x, y: (x * y * scale).sin()
        return TRANSFORMS[outer](lambda x: TRANSFORMS[inner](lambda y: f(x, y))(X))(X)

    (actual,) = torch.autograd.grad(func(scale).sum(), scale)
    step = 1e-6 * torch.eye(2, dtype=torch.float64)
    with torch.no_grad():
        differences = [(func(scale + d).sum() - func(scale - d).sum()) / 2e-6 for d in step]
    assert_close(actual, torch.stack(differences), 1e-5)


def test_a_training_step_leaves_no_graph_behind():
    energy = lambda w, x: (x @ w.reshape(2, 2)).tanh().sum()
    x, w = rand(3, 2), rand(4)
    for _ in range(3):
        w = w - 0.1 * grad(lambda w: grad(energy, 1)(w, x).square().sum())(w)
        assert w.grad_fn is None and not w.requires_grad


def test_the_value_and_aux_have_no_graph():
    def func(x):
        inner, (value, aux) = grad_and_value(lambda y: ((x * y).sum(), y * x), has_aux=True)(X)
        return (inner * value).sum(), (aux, inner)

    gradient, (value, aux) = grad_and_value(func, has_aux=True)(X)
    assert not any(tensor.requires_grad for tensor in (gradient, value, *aux))


def test_a_pullback_that_is_called_inside_another_transform():
    output, pullback = vjp(lambda x: x.sin() * x, X)
    gradient = grad(lambda v: pullback(v)[0].square().sum())(X)
    assert not output.requires_grad and not gradient.requires_grad
    derivative = X.cos() * X + X.sin()
    assert_close(gradient, 2 * derivative.square() * X)


@pytest.mark.parametrize("transform", ["grad", "vjp", "jacrev", "linearize"])
def test_nobody_differentiates_by_what_the_program_keeps(transform):
    kept = []

    def func(x):
        kept.append(x.sin())
        return kept[0] * x

    TRANSFORMS[transform](func)(X)
    assert not grad(lambda x: (x * kept[0]).sum())(X).requires_grad


def test_leaves_look_as_others_do():
    def func(x):
        leaf = x.sin().grad_fn.next_functions[0][0]
        assert type(leaf).__name__ == "AccumulateGrad" and leaf.name().endswith("AccumulateGrad")
        assert leaf.variable is x
        return x.sum()

    grad(func)(X)


@pytest.mark.parametrize("number", [True, False], ids=["number", "vector"])
@pytest.mark.parametrize("transform", [grad, grad_and_value, jacrev])
def test_aux_that_shares_the_graph_stays_differentiable(transform, number):
    scale = torch.tensor([1.5, 2.0], dtype=torch.float64, requires_grad=True)

    def func(x):
        shared = x.sin()
        output = shared.sum() if number or transform is not jacrev else shared
        return output, {"aux": (shared * scale).sum()}

    found = transform(func, has_aux=True)(X)[1]
    aux = found[1] if transform is grad_and_value else found
    assert_close(torch.autograd.grad(aux["aux"], scale)[0], X.sin())


@pytest.mark.parametrize("reverse", [grad, grad_and_value, jacrev])
def test_a_backward_pass_frees_what_tangents_recorded(reverse):
    """Among it what tanh saves, its own result, whose tangent's graph holds that again."""
    alive = []

    def func(x):
        hidden = x.exp().tanh()
        alive.append(weakref.ref(hidden))
        x.register_hook(lambda _: alive.append(alive[0]() is not None))
        return hidden.square().sum()

    jvp(reverse(func), (X,), (X.cos(),))
    assert alive[1:] == [False]
