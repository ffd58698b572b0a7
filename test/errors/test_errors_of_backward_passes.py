"""Errors of a backward pass that a dispatch mode sees, such as that of a tracer."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from functorch_ext import grad, jacrev, vjp, vmap


class Refusing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, cotangent):
        raise KeyError("mine")


def refusing_hook(x):
    y = x * 2
    y.register_hook(lambda cotangent: Refusing.backward(None, cotangent))
    return y


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen = [*getattr(self, "seen", []), func]
        return func(*args, **(kwargs or {}))


TRANSFORMS = {
    "grad": lambda f: grad(lambda x: f(x).sum()),
    "vjp": lambda f: lambda x: vjp(f, x)[1](x),
    "jacrev": jacrev,
    "vmap of grad": lambda f: vmap(grad(f)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("func", [Refusing.apply, refusing_hook])
def test_the_error_is_the_programs(name, func):
    transformed = TRANSFORMS[name](func)
    with pytest.raises(KeyError, match="mine"), Watching() as mode:
        transformed(torch.ones(3))
    assert torch.ops.aten.zeros.default not in mode.seen
    for tracing_mode in ("real", "symbolic"):
        with pytest.raises(KeyError, match="mine"):
            make_fx(transformed, tracing_mode=tracing_mode)(torch.ones(3))
