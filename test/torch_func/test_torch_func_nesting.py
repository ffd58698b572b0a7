"""torch.func's transforms inside ours and around them: as a loop of plain autograd computes."""

import pytest
import torch
import torch.func as theirs

import functorch_ext as ours
from test.oracle import assert_close, rand
from test.state import assert_clean_state

X = rand(2, 2)


def func(x):
    y = x.clone()
    y.mul_(2)
    return y.sin() * x


def weights(like):
    return torch.linspace(0.5, 1.5, like.numel(), dtype=like.dtype).reshape(like.shape)


def transforms(package):
    total = lambda f: lambda x: (f(x) * weights(f(x))).sum()
    return {
        "vmap": package.vmap,
        "grad": lambda f: package.grad(total(f)),
        "vjp": lambda f: lambda x: package.vjp(f, x)[1](weights(f(x)))[0],
        "jvp": lambda f: lambda x: package.jvp(f, (x,), (x,))[1],
        "jacrev": package.jacrev,
        "jacfwd": package.jacfwd,
        "hessian": package.hessian,
        "functionalize": package.functionalize,
        "jvp(jvp)": lambda f: (
            lambda x: package.jvp(lambda x: package.jvp(f, (x,), (x,))[1], (x,), (x,))[1]
        ),
    }


def leaf(x):
    return x.clone() if x.requires_grad else x.detach().clone().requires_grad_()


def pulled_back(y, x, cotangent):
    (gradient,) = torch.autograd.grad(
        y, x, cotangent, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return gradient


def plain_vjp(f):
    def vjp(x):
        x = leaf(x)
        y = f(x)
        return pulled_back(y, x, weights(y))

    return vjp


def plain_jvp(f):
    def jvp(tangent):
        x = leaf(tangent)
        y = f(x)
        cotangent = torch.zeros_like(y).requires_grad_()
        return pulled_back(pulled_back(y, x, cotangent), cotangent, tangent)

    return jvp


def plain_jacobian(f):
    def jacobian(x):
        x = leaf(x)
        y = f(x)
        rows = [pulled_back(part, x, torch.ones_like(part)) for part in y.reshape(-1)]
        return torch.stack(rows).reshape(y.shape + x.shape)

    return jacobian


PLAIN = {
    "vmap": lambda f: lambda x: torch.stack([f(sample) for sample in x]),
    "grad": plain_vjp,
    "vjp": plain_vjp,
    "jvp": plain_jvp,
    "jacrev": plain_jacobian,
    "jacfwd": plain_jacobian,
    "hessian": lambda f: plain_jacobian(plain_jacobian(f)),
    "functionalize": lambda f: f,
    "jvp(jvp)": lambda f: plain_jvp(plain_jvp(f)),
}
OURS, THEIRS = transforms(ours), transforms(theirs)


@pytest.mark.parametrize("outer", OURS)
@pytest.mark.parametrize("inner", OURS)
@pytest.mark.parametrize(
    ("around", "inside"), [(OURS, THEIRS), (THEIRS, OURS)], ids=["in_ours", "in_theirs"]
)
def test_pairs(around, inside, outer, inner):
    x = X[:1] if "hessian" in (outer, inner) else X
    result = around[outer](inside[inner](func))(x)
    assert_close(result, PLAIN[outer](PLAIN[inner](func))(x).detach())
    assert_clean_state()


SOME = ["vmap", "grad", "jvp", "jacrev", "functionalize"]


@pytest.mark.slow
@pytest.mark.parametrize("innermost", SOME)
@pytest.mark.parametrize("middle", [name for name in SOME if name != "functionalize"])
@pytest.mark.parametrize("outermost", SOME)
@pytest.mark.parametrize(
    ("around", "inside"), [(OURS, THEIRS), (THEIRS, OURS)], ids=["in_ours", "in_theirs"]
)
def test_sandwiches(around, inside, outermost, middle, innermost):
    x = rand(2, 2, 1)
    result = around[outermost](inside[middle](around[innermost](func)))(x)
    assert_close(result, PLAIN[outermost](PLAIN[middle](PLAIN[innermost](func)))(x).detach())
    assert_clean_state()


def test_their_transforms_still_compile():
    compiled = torch.compile(theirs.vmap(theirs.grad(lambda x: x.sin().sum())), backend="eager")
    assert_close(compiled(X), X.cos())
