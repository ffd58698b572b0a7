"""Forward mode through kernels for which PyTorch has no forward derivative.

PyTorch asks a registry for a decomposition where it has no formula, and runs it in place of the
kernel: only when a tangent flows through it. The engine has kernels for other operators without a
formula. Python's own are here.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.nn.functional import cross_entropy, linear

from functorch_ext import _C, _patches
from functorch_ext._releases import module_since

aten = torch.ops.aten
linear_cross_entropy = module_since((2, 13), "torch.nn.modules.linear_cross_entropy")


def install() -> None:
    """Registers the decompositions."""
    with warnings.catch_warnings():  # torch.jit is deprecated, and all that this registry takes
        warnings.simplefilter("ignore", DeprecationWarning)
        _register(aten._weight_norm_interface.default, weight_norm)
    if linear_cross_entropy is not None:
        _teach_linear_cross_entropy(linear_cross_entropy)
    _C.register_missing_forward()


def _teach_linear_cross_entropy(module: ModuleType) -> None:
    for name, formula in (
        ("_linear_cross_entropy_batch_chunked", chunked_loss),
        ("_linear_cross_entropy_batch_chunked_no_reduction", chunked_losses),
    ):
        call = _where_a_tangent_flows(formula, getattr(module, name))
        _patches.replace(module, name, call, "it has no forward derivative")


def _register(op: torch._ops.OpOverload, decomposition: Callable[..., object]) -> None:
    called = torch.jit.ignore(decomposition)  # noqa: F841 - a name in the source below
    signature = inspect.signature(decomposition)
    parameters = ", ".join(map(str, signature.parameters.values()))
    source = f"def decomposed({parameters}):\n  return called({', '.join(signature.parameters)})\n"
    torch.jit._register_decomposition(op, torch.jit.CompilationUnit(source).decomposed.graph)


def weight_norm(
    v: torch.Tensor, g: torch.Tensor, dim: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight of the direction ``v`` and the norms ``g`` along a dimension; the norms of ``v``."""
    norms = torch.norm_except_dim(v, 2, dim)
    return v * (g / norms), norms


def _where_a_tangent_flows(
    formula: Callable[..., Any], plain: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(plain)
    def call(*args: Any) -> Any:
        return formula(*args) if _C.tangent_flows(args) else plain(*args)

    return call


def chunked_loss(
    x: torch.Tensor, layer: torch.Tensor, target: torch.Tensor, bias: torch.Tensor | None,
    weight: torch.Tensor | None, reduction: str, ignored: int, *_: Any
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """The loss of a layer's scores, and none of the gradients that PyTorch's operator returns."""
    scores = linear(x, layer, bias)
    loss = cross_entropy(scores, target, weight, ignore_index=ignored, reduction=reduction)
    return loss, x.new_empty(0, 0), x.new_empty(0, 0), x.new_empty(0)


def chunked_losses(
    x: torch.Tensor, layer: torch.Tensor, target: torch.Tensor, bias: torch.Tensor | None,
    weight: torch.Tensor | None, ignored: int, *_: Any
) -> torch.Tensor:  # fmt: skip
    """The losses of each row."""
    return chunked_loss(x, layer, target, bias, weight, "none", ignored)[0]
