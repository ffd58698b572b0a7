"""Zeros in traces: they have memory of their own, so that compilers may read it and write to it."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from functorch_ext import grad, hessian, jacfwd, jvp, vmap

MODES = pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
I = torch.tensor([0, 2, 0])  # noqa: E741


def rand(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@MODES
def test_tangents_of_constants_are_zeros(mode):
    x = rand(3)
    # Fake tensors of the same shape, which PyTorch remembers.
    make_fx(lambda y: y.unsqueeze(0).expand(3, 1), tracing_mode="fake")(rand(1))
    function = jacfwd(jacfwd(torch.prod))
    graph = make_fx(function, tracing_mode=mode, _allow_non_fake_inputs=True)(x)
    targets = [node.target for node in graph.graph.nodes]
    assert torch.ops.aten._efficientzerotensor.default not in targets
    torch.testing.assert_close(graph(x), function(x))


CHANGES = {
    "index_put": lambda z, v: z.index_put((I,), v, accumulate=True),
    "index_add": lambda z, v: z.index_add(0, I, v),
    "index_copy": lambda z, v: z.index_copy(0, I, v),
    "index_reduce": lambda z, v: z.index_reduce(0, I, v, "prod"),
    "scatter": lambda z, v: z.scatter(0, I, v),
    "scatter_add": lambda z, v: z.scatter_add(0, I, v),
    "scatter_reduce": lambda z, v: z.scatter_reduce(0, I, v, "amax"),
    "select_scatter": lambda z, v: z.select_scatter(v[0], 0, 1),
    "put": lambda z, v: z.put(I, v, accumulate=True),
}


def changed_in(graph):
    """The layouts of what operators return with other numbers in places."""
    names = ("index_put", "index_add", "index_copy", "index_reduce", "scatter")
    for node in graph.graph.nodes:
        if any(name in str(node.target) for name in names):
            yield node.args[0].meta["val"].stride()


@MODES
@pytest.mark.parametrize("name", CHANGES)
def test_what_samples_share_is_copied(name, mode):
    function = vmap(lambda v: CHANGES[name](torch.zeros(4, dtype=v.dtype), v))
    graph = make_fx(function, tracing_mode=mode, _allow_non_fake_inputs=True)(rand(5, 3))
    strides = list(changed_in(graph))
    assert strides and all(0 not in each for each in strides)
    torch.testing.assert_close(graph(rand(5, 3)), function(rand(5, 3)))


@MODES
@pytest.mark.parametrize("name", [name for name in CHANGES if "put" in name or "add" in name])
def test_tangents_of_constants_that_are_changed(name, mode):
    function = lambda v, t: jvp(lambda v: CHANGES[name](torch.ones(4).to(v), v), (v,), (t,))
    args = rand(3), rand(3).sin()
    graph = make_fx(function, tracing_mode=mode, _allow_non_fake_inputs=True)(*args)
    assert all(0 not in each for each in changed_in(graph))
    torch.testing.assert_close(graph(*args), function(*args))


def energy(r):
    i, j = torch.triu_indices(len(r), len(r), 1)
    return (1 / ((r[i] - r[j]) ** 2).sum(-1)).sum()


def test_inductor_writes_to_memory_of_its_own():
    r, t = rand(4, 3), rand(4, 3).sin()
    compiled = torch.compile(lambda r, t: (hessian(energy)(r), jvp(grad(energy), (r,), (t,))))
    expected = hessian(energy)(r), jvp(grad(energy), (r,), (t,))
    torch.testing.assert_close(compiled(r, t), expected)


def test_inductor_reads_zeros():
    x = rand(3)
    torch.testing.assert_close(
        torch.compile(jacfwd(jacfwd(torch.prod)))(x), jacfwd(jacfwd(torch.prod))(x)
    )
