"""Forward mode through kernels for which PyTorch has no forward derivative.

PyTorch asks a registry for a decomposition where it has no formula, and runs it in place of the
kernel: only when a tangent flows through it.
"""

import inspect
import warnings
from collections.abc import Callable

import torch

aten = torch.ops.aten


def install() -> None:
    """Registers the decompositions."""
    with warnings.catch_warnings():  # torch.jit is deprecated, and all that this registry takes
        warnings.simplefilter("ignore", DeprecationWarning)
        _register(aten._weight_norm_interface.default, weight_norm)


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
