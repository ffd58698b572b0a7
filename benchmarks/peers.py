"""Who computes the workloads: functorch_ext and its peers, some of which may not be installed."""

import importlib
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import functorch_ext
from benchmarks.timing import Contenders

OURS = "functorch_ext"
TORCH_FUNC = "torch.func"
BY_HAND = "by hand"
LOOP = "autograd, loop"
FUNCTIONAL = "torch.autograd.functional"
OPACUS = "Opacus"
JAX = "JAX, eager"
JAX_JIT = "JAX, jit"
OURS_JIT = "functorch_ext, jit"  # beside JAX_JIT alone

ALL = (OURS, TORCH_FUNC, BY_HAND, LOOP, FUNCTIONAL, OPACUS, JAX, JAX_JIT)
QUICK = (OURS, TORCH_FUNC, BY_HAND)


class Peers:
    """The peers that take part in a run.

    Args:
        names: which may, of ``ALL``.
        device: where the data is. JAX takes the device that it was installed for.

    Attributes:
        missing: what couldn't be imported, with the reason; empty until it was asked for.
    """

    def __init__(self, names: Iterable[str] = ALL, device: str = "cpu") -> None:
        self.names = frozenset(names)
        self.device = device
        self.missing: dict[str, str] = {}

    def both(self, make: Callable[[ModuleType], Callable[[], Any]]) -> Contenders:
        """The same computation with both libraries; ``make`` gets the one to use."""
        return {OURS: make(functorch_ext), TORCH_FUNC: make(torch.func)}

    def jax(self, make: Callable[[ModuleType], Callable[..., Any]], *args: Any) -> Contenders:
        """The computation with JAX, operator by operator and compiled; nothing where it is absent.

        Args:
            make: gets the module ``jax`` and returns a function of JAX's arrays.
            args: its arguments as PyTorch tensors, or dicts, lists and tuples of them.
        """
        if not self.names & {JAX, JAX_JIT} or (jax := self._import("jax")) is None:
            return {}
        if jax.default_backend() != {"cpu": "cpu", "cuda": "gpu"}[self.device]:
            self.missing["jax"] = f"it computes on {jax.default_backend()}"
            return {}
        # As PyTorch multiplies matrices of float32.
        jax.config.update("jax_default_matmul_precision", "highest")
        arrays = pytree.tree_map(lambda x: jax.numpy.asarray(x.detach().cpu().numpy()), args)
        func = make(jax)
        return {
            name: partial(_until_computed, jax, variant, arrays)
            for name, variant in {JAX: func, JAX_JIT: jax.jit(func)}.items()
        }

    def opacus(self, make: Callable[[ModuleType], Callable[[], Any]]) -> Contenders:
        """The computation with Opacus, whose module ``make`` gets; nothing where it is absent."""
        if OPACUS not in self.names or (opacus := self._import("opacus")) is None:
            return {}
        return {OPACUS: make(opacus)}

    def _import(self, name: str) -> ModuleType | None:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            self.missing[name] = str(error)
            return None


def _until_computed(jax: ModuleType, func: Callable[..., Any], args: Any) -> Any:
    """JAX returns before it has computed."""
    return jax.block_until_ready(func(*args))


def as_torch(result: Any) -> Any:
    """A contender's result with JAX's arrays as tensors on the CPU, for comparison."""

    def convert(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.detach().cpu()
        return torch.from_numpy(leaf.__array__().copy())

    return pytree.tree_map(convert, result)


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """A module's parameters by name, detached."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}
