"""Counts what the import of the package costs programs that use no transform: it repeats.

Two processes run the same calls of plain PyTorch under Valgrind, one of them after
``import functorch_ext``, whose patches (docs/patches.md) are all that could slow them down.

python -m benchmarks.plain_programs [--output build/benchmarks/plain_programs.json]
"""

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.callgrind import count, counts_of, is_available
from benchmarks.part import run_part


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * cotangent


def programs() -> dict[str, Callable[[], Any]]:
    """Calls of what is patched, as plain programs make them."""
    x = torch.rand(4, 8)
    leaf = torch.rand(4, 8, requires_grad=True)
    hooked = nn.Linear(8, 8)
    hooked.register_full_backward_hook(lambda module, by_inputs, by_outputs: None)
    network = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))

    def training_step() -> None:
        network(x).sum().backward()
        network.zero_grad()

    def saved_hooks() -> None:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            leaf.sin()

    return {
        "torch.zeros(4)": lambda: torch.zeros(4),
        "torch.tensor([1., 2.])": lambda: torch.tensor([1.0, 2.0]),
        "x.clone()": lambda: x.clone(),
        "x.numpy()": lambda: x.numpy(),
        "x.data_ptr()": lambda: x.data_ptr(),
        "x.new_zeros(4)": lambda: x.new_zeros(4),
        "copy.deepcopy(x)": lambda: copy.deepcopy(x),
        "repr(x)": lambda: repr(x),
        "torch.autograd.grad": lambda: torch.autograd.grad(leaf.sin().sum(), leaf),
        "training step of an MLP": training_step,
        "custom Function": lambda: _Square.apply(leaf),
        "custom Function, backward": lambda: torch.autograd.grad(_Square.apply(leaf).sum(), leaf),
        "register_hook": lambda: leaf.register_hook(lambda cotangent: None).remove(),
        "module with a full backward hook": lambda: hooked(leaf).sum().backward(),
        "saved_tensors_hooks": saved_hooks,
        "checkpoint": lambda: checkpoint(network, leaf, use_reentrant=False).sum().backward(),
        "torch.func.grad": lambda: torch.func.grad(lambda y: y.sin().sum())(x),
        "torch.func.vmap": lambda: torch.func.vmap(torch.sin)(x),
    }


def count_here(with_package: bool) -> None:
    """Counts all programs, in a process that Valgrind runs."""
    if with_package:
        import functorch_ext  # noqa: F401
    assert ("functorch_ext" in sys.modules) == with_package
    count(programs().values())


def measure() -> dict[str, Any]:
    """Instructions of each program, ``without`` and ``with`` the package imported; or a ``note``
    alone, where there is no Valgrind.
    """
    if not is_available():
        return {"note": "Left out: no Valgrind, or a PyTorch that was built without it."}
    names = list(programs())
    results: dict[str, Any] = {name: {} for name in names}
    for side in ("without", "with"):
        counted = counts_of("benchmarks.plain_programs", ["--count", side], len(names))
        for name, instructions in zip(names, counted, strict=True):
            results[name][side] = instructions
    return results


def tables(results: dict[str, Any]) -> str:
    """Instructions without and with the package, and the difference."""
    from benchmarks.report import table  # It imports the package.

    if "note" in results:
        return results["note"]
    rows = [
        [name, f"{of['without']:,}", f"{of['with']:,}", f"{of['with'] / of['without'] - 1:+.1%}"]
        for name, of in results.items()
    ]
    return table(["Plain program, instructions", "without", "with", "more"], rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        count_here(sys.argv[2] == "with")
    else:
        run_part("plain_programs", __doc__, measure, tables)
