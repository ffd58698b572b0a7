"""``checkpoint`` against the function itself, at every nesting, and what it keeps."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import CheckpointError

from benchmarks.memory import peak_of
from functorch_ext import (
    checkpoint,
    functional_call,
    grad,
    hessian,
    hvp,
    jacfwd,
    jacrev,
    jvp,
    vjp,
    vmap,
)
from test.modes import Seen
from test.oracle import assert_close, rand

aten = torch.ops.aten
POLICIES = {
    "nothing": None,
    "dots": "dots",
    "everything": "everything",
    "operators": [aten.tanh, aten.mm.default],
    "function": lambda operator: "sin" in str(operator) or "mm" in str(operator),
    "all": lambda operator: True,
}


def of_sum(f):
    return lambda x: f(x).square().sum()


def third(f):
    return grad(of_sum(grad(of_sum(grad(f)))))


TRANSFORMS = {
    "itself": lambda f, x: f(x),
    "grad": lambda f, x: grad(f)(x),
    "vmap(grad)": lambda f, x: vmap(grad(f))(torch.stack([x, x.sin(), x.cos()])),
    "grad(vmap)": lambda f, x: grad(lambda x: vmap(f)(torch.stack([x, x.sin()])).prod())(x),
    "grad(grad)": lambda f, x: grad(of_sum(grad(f)))(x),
    "grad(grad(grad))": lambda f, x: third(f)(x),
    "vmap(hvp.at)": lambda f, x: vmap(hvp(f).at(x))(torch.stack([x.cos(), x, x.exp()])),
    "vmap(grad(grad))": lambda f, x: vmap(grad(of_sum(grad(f))))(torch.stack([x, x.sin()])),
    "grad(vmap(grad))": lambda f, x: grad(of_sum(vmap(grad(f))))(torch.stack([x, x.sin()])),
    "jvp": lambda f, x: jvp(f, (x,), (x.cos(),)),
    "jvp(grad)": lambda f, x: jvp(grad(f), (x,), (x.cos(),)),
    "jvp(jvp)": lambda f, x: jvp(lambda x: jvp(f, (x,), (x,))[1], (x,), (x.cos(),)),
    "vmap(jvp(grad))": lambda f, x: vmap(lambda t: jvp(grad(f), (x,), (t,))[1])(
        torch.stack([x, x.sin()])
    ),
    "hessian": lambda f, x: hessian(f)(x),
    "jacrev(jacrev)": lambda f, x: jacrev(jacrev(f))(x),
    "vmap(vmap(grad))": lambda f, x: vmap(vmap(grad(f)))(torch.stack([x, x.sin()])[None]),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_as_the_function_itself(name, policy):
    torch.manual_seed(0)
    w, x = 0.5 * rand(4, 4), rand(3, 4)

    def block(x):
        y = torch.tanh(x @ w).sin() @ w.T
        y = y + (y @ w).mul_(0.1).exp()
        return y * (x * y).sum()

    def twice(block):
        return lambda x: block(block(x)).sum()

    again = checkpoint(block, policy=POLICIES[policy])
    transform = TRANSFORMS[name]
    assert_close(transform(twice(again), x), transform(twice(block), x))
    both = checkpoint(twice(again), policy=POLICIES[policy])
    assert_close(transform(both, x), transform(twice(block), x))


@pytest.mark.parametrize("policy", POLICIES)
def test_closures_containers_and_keywords(policy):
    w = rand(3, 3)

    def total(w):
        f = checkpoint(
            lambda tree, *, scale: {"y": (tree["x"] @ w).sin() * scale}, policy=POLICIES[policy]
        )
        return f({"x": rand(2, 3).new_ones(2, 3)}, scale=2)["y"].sum()

    expected = grad(lambda w: ((torch.ones(2, 3).double() @ w).sin() * 2).sum())(w)
    assert_close(grad(total)(w), expected)


INNER = {
    "grad": lambda f, x: grad(f)(x),
    "vjp": lambda f, x: vjp(f, x)[1](torch.ones((), dtype=x.dtype))[0],
    "jacrev": lambda f, x: jacrev(f)(x),
    "vmap(grad)": lambda f, x: vmap(lambda c: grad(lambda x: f(c * x))(x))(x).sum(0),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", INNER)
def test_transforms_inside(name, policy):
    w, x = rand(3, 3), rand(3)

    def inside(x):
        return (INNER[name](lambda z: (z @ w).sin().prod(), x) * x.cos()).sum()

    def expected(x):
        x = x.clone().requires_grad_()
        f = lambda z: (z @ w).sin().prod()
        z = x * 1.0
        scales = x if name == "vmap(grad)" else [None]
        total = 0.0
        for c in scales:
            value = f(z) if c is None else f(c * z)
            total = total + torch.autograd.grad(value, z, create_graph=True)[0]
        return torch.autograd.grad((total * x.cos()).sum(), x)[0]

    again = checkpoint(inside, policy=POLICIES[policy])
    assert_close(grad(again)(x), expected(x))
    stacked = torch.stack([x, x.sin()])
    assert_close(vmap(grad(again))(stacked), torch.stack([expected(x), expected(x.sin())]))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_hessian_inside(policy):
    w = rand(4, 4)
    inner = lambda z: ((z @ w).sin() @ w).pow(3).sum()
    func = lambda x: (hessian(inner)(x) @ x).sum()
    xs = torch.stack([rand(4), rand(4).sin()])
    again = checkpoint(func, policy=POLICIES[policy])
    assert_close(vmap(grad(again))(xs), torch.stack([grad(func)(x) for x in xs]))


def test_writes_to_what_is_kept():
    x, w = rand(2, 3, 4), rand(4, 4)

    def inside(x):  # through a view that autograd doesn't know of
        return ((x @ w).mul_(0.1).exp() * (x @ w.T).tanh()).sum()

    kept = checkpoint(lambda x: (x @ w).tanh() @ w, policy="dots")

    def outside(x):
        y = kept(x)
        return (y.mul_(2) * x).sum()

    expected = lambda x: (2 * ((x @ w).tanh() @ w) * x).sum()
    for f, g in ((checkpoint(inside, policy="dots"), inside), (outside, expected)):
        assert_close(grad(f)(x), grad(g)(x))
        assert_close(vmap(grad(f))(x), vmap(grad(g))(x))
        assert_close(hessian(f)(x), hessian(g)(x))


@pytest.mark.parametrize("policy", POLICIES)
def test_parameters_of_a_module(policy):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    parameters = {name: each.detach() for name, each in model.named_parameters()}
    call = lambda p, x: functional_call(model, p, (x,)).sum()
    again = checkpoint(call, policy=POLICIES[policy])
    x = rand(6, 4)
    assert_close(grad(again)(parameters, x), grad(call)(parameters, x))
    mapped = lambda f: vmap(grad(f), (None, 0))(parameters, x)
    assert_close(mapped(again), mapped(call))
    plain = lambda f: torch.autograd.grad(
        f(dict(model.named_parameters()), x), list(model.parameters())
    )
    assert_close(plain(again), plain(call))


@pytest.mark.parametrize("policy", POLICIES)
def test_draws_are_the_same_again(policy):
    x = torch.ones(50).double()

    def f(x):
        y = x * torch.rand(50, dtype=x.dtype)
        return (y.sin() * torch.rand(50, dtype=x.dtype)).sum()

    def gradient(f):
        torch.manual_seed(5)
        return grad(f)(x)

    assert_close(gradient(checkpoint(f, policy=POLICIES[policy])), gradient(f))


@pytest.mark.parametrize(
    ("policy", "products", "tanhs"),
    [(None, 2, 2), ("dots", 1, 2), ([aten.tanh], 2, 1), (lambda operator: True, 1, 1)],
)
def test_what_is_kept_is_not_computed_again(policy, products, tanhs):
    x, w = rand(3, 4), rand(4, 5)

    def f(x):
        return torch.tanh(x @ w).sin().sum()

    # Without a backward pass through the product: that is one more.
    def counts(run):
        with Seen() as seen:
            run()
        return seen.names.count("mm"), seen.names.count("tanh")

    assert counts(lambda: grad(checkpoint(f, policy=policy))(x)) == (products + 1, tanhs)
    assert counts(lambda: grad(f)(x)) == (2, 1)


def test_memory():
    x = torch.randn(1000, 100)

    def block(x):
        for _ in range(10):
            x = x.sin()
        return x

    def chain(block):
        def total(x):
            for _ in range(5):
                x = block(x)
            return x.sum()

        return lambda: grad(total)(x)

    size = x.numel() * 4
    assert peak_of(chain(block)) > 48 * size
    assert peak_of(chain(checkpoint(block))) < 20 * size


def pushed(f):
    return lambda x: jvp(f, (x,), (x.cos(),))[1].sin().sum()


AROUND_FORWARD = {
    "grad(jvp)": lambda f, x: grad(pushed(f))(x),
    "vmap(grad(jvp))": lambda f, x: vmap(grad(pushed(f)))(torch.stack([x, x.sin()])),
    "jvp(grad(jvp))": lambda f, x: jvp(grad(pushed(f)), (x,), (x.sin(),)),
    "grad(grad(jvp))": lambda f, x: grad(of_sum(grad(pushed(f))))(x),
    "grad(jvp(grad))": lambda f, x: grad(pushed(grad(lambda x: f(x).sum())))(x),
    "grad(vmap(jvp))": lambda f, x: grad(
        of_sum(lambda x: vmap(lambda v: jvp(f, (x,), (v,))[1])(torch.stack([x.cos(), x])))
    )(x),
    "jacrev(jacfwd)": lambda f, x: jacrev(jacfwd(f))(x),
    "autograd": lambda f, x: torch.autograd.grad(pushed(f)(y := x.clone().requires_grad_()), y),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", AROUND_FORWARD)
def test_reverse_around_forward(name, policy):
    w, x = rand(3, 3), rand(3)

    def block(x, scale):
        return torch.tanh(x @ w).sin() * (x * scale).exp().cumsum(-1)

    again = checkpoint(block, policy=POLICIES[policy])
    twice = lambda f: lambda x: f(f(x, scale=2), scale=0.5)
    assert_close(AROUND_FORWARD[name](twice(again), x), AROUND_FORWARD[name](twice(block), x))


@pytest.mark.parametrize("policy", [None, "dots"])
def test_tangents_that_are_gone(policy):
    x = rand(3)
    sin = checkpoint(torch.sin, policy=policy)
    closing = lambda y: checkpoint(lambda x: x * y, policy=policy)(x)
    stacked = lambda x: vmap(sin)(torch.stack([x, x]))
    for f in (closing, stacked, lambda x: jvp(sin, (x,), (x.sin(),))[1]):
        with pytest.raises(CheckpointError, match="different number of tensors"):
            grad(pushed(f))(x)


def test_errors():
    with pytest.raises(TypeError, match="checkpoint: expected a function, but got"):
        checkpoint(3)
    with pytest.raises(ValueError, match="to be None, 'dots', 'everything', a list .* got 'dot'"):
        checkpoint(torch.sin, policy="dot")
    for wrong in (3, [torch.mm], [3], aten.mm):
        with pytest.raises(TypeError, match="a list of operators such as torch.ops.aten.mm"):
            checkpoint(torch.sin, policy=wrong)
