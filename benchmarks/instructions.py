"""Counts the machine instructions that a transform adds to an operator: a figure that repeats.

Times vary with the machine and with what else runs on it; the number of instructions hardly does.
Valgrind counts them (its tool callgrind). A chain of 40 operators less a chain of 20 gives the
instructions of one operator, its derivative included where there is one; what a call costs besides
is its entry.

python -m benchmarks.instructions [--output build/benchmarks/instructions.json]
"""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

import functorch_ext
from benchmarks.callgrind import count, counts_of, is_available
from benchmarks.part import run_part
from benchmarks.peers import BY_HAND, OURS, TORCH_FUNC
from benchmarks.report import table

SHORT, LONG = 20, 40

Function = Callable[[Tensor], Tensor]
weight = torch.linspace(0.5, 1, 4)

OPERATORS: dict[str, Function] = {
    "sin": lambda x: x.sin(),
    "x * w": lambda x: x * weight,
}


def _chain(operator: Function, length: int) -> Function:
    def run(x: Tensor) -> Tensor:
        for _ in range(length):
            x = operator(x)
        return x

    return run


def _summed(func: Function) -> Function:
    return lambda x: func(x).sum()


def _with_library(library: ModuleType) -> dict[str, Callable[[Function], Function]]:
    """The transforms, each as a function from a chain to what is called."""
    vmap, grad, jvp = library.vmap, library.grad, library.jvp
    return {
        "vmap": vmap,
        "vmap(vmap)": lambda chain: vmap(vmap(chain)),
        "grad": lambda chain: grad(_summed(chain)),
        "vmap(grad)": lambda chain: vmap(grad(_summed(chain))),
        "jvp": lambda chain: lambda x: jvp(chain, (x,), (x,))[1],
    }


def _by_hand() -> dict[str, Callable[[Function], Function]]:
    """What one writes without transforms: chains take batches as they are."""

    def gradient(chain: Function) -> Function:
        def run(x: Tensor) -> Tensor:
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(chain(leaf).sum(), leaf)[0]

        return run

    def tangent(chain: Function) -> Function:
        def run(x: Tensor) -> Tensor:
            with forward_ad.dual_level():
                return forward_ad.unpack_dual(chain(forward_ad.make_dual(x, x))).tangent

        return run

    return {
        "vmap": lambda chain: chain,
        "vmap(vmap)": lambda chain: chain,
        "grad": gradient,
        "vmap(grad)": gradient,
        "jvp": tangent,
    }


def cases() -> Iterator[tuple[tuple[str, str, str, int], Callable[[], Any]]]:
    """What is counted: (operator, transform, who, length of the chain), and the call to count."""
    x = torch.rand(2, 2, 4)
    sides = {
        BY_HAND: _by_hand(),
        OURS: _with_library(functorch_ext),
        TORCH_FUNC: _with_library(torch.func),
    }
    for operator_name, operator in OPERATORS.items():
        for side, transforms in sides.items():
            for name, transform in transforms.items():
                for length in (SHORT, LONG):
                    run = transform(_chain(operator, length))
                    yield (operator_name, name, side, length), lambda run=run: run(x)


def measure() -> dict[str, Any]:
    """Instructions of each operator and of the entry, by operator, transform and side.

    Returns:
        A dict from "operator, transform" to sides to ``per_operator`` and ``entry``; or a dict of a
        ``note`` alone, where there is no Valgrind.
    """
    if not is_available():
        return {"note": "Left out: no Valgrind, or a PyTorch that was built without it."}
    keys = [key for key, _ in cases()]
    counted = counts_of("benchmarks.instructions", ["--count"], len(keys))
    counts = dict(zip(keys, counted, strict=True))
    results: dict[str, Any] = {}
    for operator, transform, side, length in counts:
        if length == SHORT:
            short = counts[operator, transform, side, SHORT]
            per_operator = (counts[operator, transform, side, LONG] - short) / (LONG - SHORT)
            results.setdefault(f"{operator}, {transform}", {})[side] = {
                "per_operator": round(per_operator),
                "entry": round(short - SHORT * per_operator),
            }
    return results


def tables(results: dict[str, Any]) -> str:
    """Instructions per operator, then of the entry."""
    if "note" in results:
        return results["note"]
    sides = (BY_HAND, OURS, TORCH_FUNC)
    parts = []
    for what, title in (("per_operator", "Per operator"), ("entry", "Entry")):
        rows = [
            [name, *(f"{of[side][what]:,}" for side in sides)]
            + [f"{of[TORCH_FUNC][what] / of[OURS][what]:.2f}"]
            for name, of in results.items()
        ]
        parts.append(table([f"{title}, instructions", *sides, f"{TORCH_FUNC} / {OURS}"], rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    if sys.argv[1:] == ["--count"]:
        count(run for _, run in cases())
    else:
        run_part("instructions", __doc__, measure, tables)
