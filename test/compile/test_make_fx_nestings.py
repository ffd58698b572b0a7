"""make_fx through every transform inside every other: right, clean, and differentiable once more."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from functorch_ext import (
    functionalize,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    vjp,
    vmap,
)

ALIASES = (torch.ops.aten.alias.default, torch.ops.aten.detach.default)
MODES = {
    "real": {},
    "fake": {"tracing_mode": "fake"},
    "symbolic": {"tracing_mode": "symbolic"},
    "pre_dispatch": {"pre_dispatch": True},
}


def base(x):
    return x.tanh() * x.exp() + (x * 0.3).sum().sin()


def pulled_back(function, x):
    output, pullback = vjp(function, x)
    return pullback(output)[0]


# Of each a function of a tensor, made of one.
TRANSFORMS = {
    "vmap": vmap,
    "grad": lambda f: grad(lambda x: f(x).sin().sum()),
    "vjp": lambda f: lambda x: pulled_back(f, x),
    "jvp": lambda f: lambda x: jvp(f, (x,), (x.cos(),))[1],
    "linearize": lambda f: lambda x: linearize(f, x)[1](x.cos()),
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "hessian": lambda f: hessian(lambda x: f(x).sin().sum()),
    "functionalize": lambda f: functionalize(lambda x: f(x.clone().mul_(2))),
}
NAMES = list(TRANSFORMS)
# Every transform once outside and once inside, for the default tests.
FEW = {(NAMES[i], NAMES[(i + 4) % len(NAMES)]) for i in range(len(NAMES))}


def rand(rows=2):
    return torch.rand(rows, 3, dtype=torch.float64)


def pairs():
    return [
        pytest.param(
            outer,
            inner,
            id=f"{outer}({inner})",
            marks=() if (outer, inner) in FEW else (pytest.mark.slow, pytest.mark.deep),
        )
        for outer in NAMES
        for inner in NAMES
    ]


def traced(function, mode):
    return make_fx(function, _allow_non_fake_inputs=True, **MODES[mode])(rand())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("outer", "inner"), pairs())
def test_nesting(outer, inner, mode):
    function = TRANSFORMS[outer](TRANSFORMS[inner](base))
    graph = traced(function, mode)
    for rows in (2, 4) if mode == "symbolic" else (2,):
        x = rand(rows)
        torch.testing.assert_close(graph(x), function(x))
        # Nothing in the graph cuts derivatives off.
        torch.testing.assert_close(
            grad(lambda x: graph(x).sin().sum())(x), grad(lambda x: function(x).sin().sum())(x)
        )
    assert not [node for node in graph.graph.nodes if node.target in ALIASES]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("transform", [None, *TRANSFORMS])
def test_detach_of_the_program_is_kept(transform, mode):
    cut = lambda x: x.detach() * x.exp() * x.sin().detach()
    if transform is None:
        function = grad(lambda x: cut(x).sum())
    else:
        function = TRANSFORMS[transform](cut)
    graph = traced(function, mode)
    x = rand()
    torch.testing.assert_close(
        grad(lambda x: graph(x).sum())(x), grad(lambda x: function(x).sum())(x)
    )
