"""Divergences, against the traces of Jacobians made by plain autograd."""

import pytest
import torch

from functorch_ext import divergence, grad, jit, jvp, vmap
from test.oracle import assert_close, loop, rand

W = rand(4, 4)


def field(x):
    return (x @ W).tanh() * x.sum(-1, keepdim=True)


def trace(x, func=field):
    return torch.autograd.functional.jacobian(func, x).reshape(x.numel(), x.numel()).trace()


@pytest.mark.parametrize("chunk_size", [None, 1, 3, "1 MiB"])
def test_the_trace_of_the_jacobian(chunk_size):
    for x in (rand(4), rand(2, 4)):
        assert_close(divergence(field, chunk_size=chunk_size)(x), trace(x))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_containers(chunk_size):
    tree = {"a": rand(3), "b": rand(2, 2)}
    field = lambda scale, t: {"a": t["a"] ** 2 * t["b"].sum(), "b": scale * t["b"].sin()}
    expected = 2 * (tree["a"] * tree["b"].sum()).sum() + 3 * tree["b"].cos().sum()
    assert_close(divergence(field, 1, chunk_size=chunk_size)(3, tree), expected)


def test_several_arguments():
    x, y = rand(3), rand(1).sum()
    assert_close(divergence(lambda x, y: (x * y, y**3), (0, 1))(x, y), 3 * y + 3 * y**2)


def test_output_that_does_not_depend_on_the_input():
    assert divergence(lambda x: torch.ones_like(x))(rand(3)) == 0


def test_numbers():
    x = rand(1).sum()
    assert_close(divergence(torch.sin)(x), x.cos())


def test_under_transforms():
    x, v = rand(3, 4), rand(4)
    assert_close(vmap(divergence(field))(x), loop(trace)(x))
    of_graph = lambda x: torch.autograd.functional.jacobian(field, x, create_graph=True).trace()
    leaf = x[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(of_graph(leaf), leaf)
    assert_close(grad(divergence(field))(x[0]), gradient)
    assert_close(jvp(divergence(field), (x[0],), (v,))[1], gradient @ v)
    assert_close(vmap(grad(divergence(field)))(x)[0], gradient)
    assert_close(divergence(grad(lambda x: (x**3).sum()))(x[0]), 6 * x[0].sum())


def test_written_in_place():
    def field(x):
        y = x * x
        y[1:] *= x[:-1]
        return y

    x = rand(3)
    assert_close(divergence(field)(x), trace(x, field))


def test_plain_autograd_and_inference_mode():
    x = rand(4).requires_grad_()
    divergence(field)(x).backward()
    assert_close(x.grad, grad(divergence(field))(x.detach()))
    with torch.inference_mode():
        got = divergence(field)(x)
    assert_close(got, trace(x.detach()))


def test_jit():
    x = rand(4)
    assert_close(jit(divergence(field), backend="graph")(x), trace(x))


@pytest.mark.parametrize(
    "func, shapes",
    [
        (torch.sum, r"\[\(3,\)\], but got \[\(\)\]"),
        (lambda x: x.outer(x), r"\[\(3,\)\], but got \[\(3, 3\)\]"),
    ],
)
def test_output_of_another_shape(func, shapes):
    with pytest.raises(RuntimeError, match=f"divergence: expected func to return .*{shapes}"):
        divergence(func)(rand(3))


def test_output_of_another_structure():
    with pytest.raises(RuntimeError, match="divergence: expected func to return a container like"):
        divergence(lambda t: [t["b"], t["a"]])({"a": rand(2), "b": rand(2)})
    with pytest.raises(RuntimeError, match="divergence: expected func to return a container like"):
        divergence(lambda x: (x, x))(rand(3))


def test_output_without_derivatives():
    for output in (1.0, torch.ones(3, dtype=torch.long)):
        with pytest.raises(RuntimeError, match=r"divergence: .*(float|torch\.int64)") as error:
            divergence(lambda x: output)(rand(3))  # noqa: B023
        assert "aux" not in str(error.value)


def test_errors():
    with pytest.raises(ValueError, match="divergence: chunk_size should be None or greater"):
        divergence(field, chunk_size=0)
    with pytest.raises(RuntimeError, match="divergence: Got argnum=1"):
        divergence(field, 1)(rand(3))
    with pytest.raises((RuntimeError, ValueError), match="divergence: .*floating"):
        divergence(field)(torch.arange(3))
