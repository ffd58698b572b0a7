"""Products with Hessians, their diagonals and traces, as parts of Dynamo's graph."""

import pytest
import torch

from functorch_ext import divergence, ggnvp, hessian_diag, hvp, laplacian, vhp, vmap

F = torch.float64


def number(x, y=None):
    value = (x.sin() * x.sum()).prod()
    return value if y is None else value * y.cos().sum()


def broken(x):
    torch._dynamo.graph_break()
    return number(x)


def rand(*shape):
    return torch.randn(*shape, dtype=F, generator=torch.Generator().manual_seed(0))


PROGRAMS = {
    "hvp by two": lambda x: hvp(number, argnums=(0, 1))(x, x[:2], (x, x[:2])),
    "hvp at": lambda x: [hvp(number).at(x)(v) for v in (x, x.sin())],
    "hvp with a keyword": lambda x: hvp(number)(x, x, y=x[1:]),
    "vhp by the second": lambda x: vhp(number, argnums=1)(x, x[:2], x[2:]),
    "vhp, mapped": lambda x: vmap(lambda v: vhp(number)(x, v))(torch.eye(4, dtype=F)),
    "ggnvp": lambda x: ggnvp(lambda w, s: w.outer(s).sin(), lambda z: z.pow(3).sum())(x, x, x),
    "hessian_diag": lambda x: hessian_diag(lambda x: {"a": x.sin() @ x})(x.view(2, 2)),
    "hessian_diag in chunks": lambda x: hessian_diag(number, argnums=1, chunk_size=3)(x, x),
    "divergence": lambda x: divergence(lambda x: x.outer(x) @ x.sin(), chunk_size=3)(x),
    "divergence, mapped": lambda x: vmap(divergence(torch.sin))(x.view(2, 2)),
    "laplacian in chunks": lambda x: laplacian(number, chunk_size=2)(x),
    "laplacian, mapped": lambda x: vmap(laplacian(number, argnums=1), (None, 0))(x, x.view(2, 2)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_one_graph(name):
    torch._dynamo.reset()
    program, x = PROGRAMS[name], rand(4)
    compiled = torch.compile(program, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), program(x))


BREAKING = {
    "laplacian with weights": lambda x: laplacian(number, weights=x)(x),
    "divergence of a container": lambda x: divergence(lambda x: {"a": x["a"].sin()})({"a": x}),
    "hessian_diag by two": lambda x: hessian_diag(number, argnums=(0, 1))(x, x),
    **{
        transform.__name__: lambda x, transform=transform: transform(broken)(x)
        for transform in (hessian_diag, laplacian)
    },
    **{
        transform.__name__: lambda x, transform=transform: transform(broken)(x, x)
        for transform in (hvp, vhp)
    },
}


@pytest.mark.parametrize("name", BREAKING)
def test_where_the_graph_breaks(name):
    torch._dynamo.reset()
    program, x = BREAKING[name], rand(4)
    torch.testing.assert_close(torch.compile(program, backend="eager")(x), program(x))


def before_and_after(x):
    product, trace = hvp(number), laplacian(number, weights=None)
    torch._dynamo.graph_break()
    return product(x, x), product.at(x)(x.cos()), trace(x)


def test_made_before_a_break_and_called_after_it():
    torch._dynamo.reset()
    x = rand(4)
    compiled = torch.compile(before_and_after, backend="eager")
    torch.testing.assert_close(compiled(x), before_and_after(x))


def test_errors_are_those_of_the_transform():
    torch._dynamo.reset()
    x = rand(4)
    for call in (
        lambda x: hvp(number)(x, x[:2]),
        lambda x: vhp(number)(x),
        lambda x: hvp(lambda x: x.sin())(x, x),
        lambda x: laplacian(number)(x.long()),
    ):
        with pytest.raises((RuntimeError, TypeError)) as expected:
            call(x)
        with pytest.raises(expected.type) as raised:
            torch.compile(call, backend="eager")(x)
        if torch.__version__.startswith("2.13") or "Dynamo failed to run" not in str(raised.value):
            assert str(raised.value) == str(expected.value)  # torch 2.14 may use words of its own
