"""Compiled programs write to tensors that are made inside a transform, as eager ones do."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from functorch_ext import grad, jvp, vmap

I = torch.tensor([0, 2, 0])  # noqa: E741

WRITES = {
    "copy_": lambda made, x: made[:3].copy_(x),
    "index_add_": lambda made, x: made.index_add_(0, I, x),
    "index_put_": lambda made, x: made.index_put_((I,), x, accumulate=True),
    "mul_": lambda made, x: made[:3].mul_(x),
    "scatter_": lambda made, x: made.scatter_(0, I, x),
    "setitem": lambda made, x: made.__setitem__(1, x[0]),
}
MAKERS = {
    "ones": lambda x: torch.ones(4, dtype=x.dtype),
    "empty": lambda x: torch.empty(4, dtype=x.dtype).fill_(2.0),
    "arange": lambda x: torch.arange(4, dtype=x.dtype),
    "tensor": lambda x: torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=x.dtype),
    "zeros_like": lambda x: torch.zeros_like(I).to(x.dtype).repeat(2)[:4].clone(),
}


def check(function, *args):
    torch.compiler.reset()
    expected = function(*args)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*args), expected)
    for mode in ("real", "fake"):
        graph = make_fx(function, tracing_mode=mode, _allow_non_fake_inputs=True)(*args)
        torch.testing.assert_close(graph(*args), expected)


def written(make, write):
    def function(x):
        made = MAKERS[make](x)
        WRITES[write](made, x * x)
        return made

    return function


X = torch.arange(1.0, 7.0, dtype=torch.float64).view(2, 3)


@pytest.mark.parametrize("write", WRITES)
def test_writes(write):
    check(vmap(written("ones", write)), X)
    check(vmap(grad(lambda x: written("ones", write)(x).sum())), X)


@pytest.mark.parametrize("make", MAKERS)
def test_makers(make):
    check(vmap(written(make, "index_add_")), X)
    check(vmap(vmap(written(make, "index_add_"))), X[None])


@pytest.mark.parametrize("write", ["index_add_", "index_put_", "scatter_"])
def test_in_forward_mode(write):
    check(vmap(lambda x: jvp(written("ones", write), (x,), (x.cos(),))), X)
