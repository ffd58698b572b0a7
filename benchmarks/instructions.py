"""Counts the machine instructions that a transform adds to an operator: a figure that repeats.

Times vary with the machine and with what else runs on it; the number of instructions hardly does.
Valgrind counts them (its tool callgrind). A chain of 40 operators less a chain of 20 gives the
instructions of one operator, its derivative included where there is one. A chain of none, summed
where there is a gradient, gives those of the entry, less what counting a call takes.

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


NOTHING = ("", "", "", 0)  # a call that does nothing, to take off


def cases() -> Iterator[tuple[tuple[str, str, str, int], Callable[[], Any]]]:
    """What is counted: (operator, transform, who, length of the chain), and the call to count."""
    x = torch.rand(2, 2, 4)
    sides = {
        BY_HAND: _by_hand(),
        OURS: _with_library(functorch_ext),
        TORCH_FUNC: _with_library(torch.func),
    }
    yield NOTHING, lambda: None
    for side, transforms in sides.items():
        for name, transform in transforms.items():
            run = transform(_chain(torch.sin, 0))
            yield ("", name, side, 0), lambda run=run: run(x)
            for operator_name, operator in OPERATORS.items():
                for length in (SHORT, LONG):
                    run = transform(_chain(operator, length))
                    yield (operator_name, name, side, length), lambda run=run: run(x)


def measure() -> dict[str, Any]:
    """Instructions of each operator and of the entry.

    Returns:
        ``per_operator``, a dict from "operator, transform" to sides to counts, and ``entry``, one
        from transforms to sides to counts; or a ``note`` alone, where there is no Valgrind.
    """
    if not is_available():
        return {"note": "Left out: no Valgrind, or a PyTorch that was built without it."}
    keys = [key for key, _ in cases()]
    counted = counts_of("benchmarks.instructions", ["--count"], len(keys))
    counts = dict(zip(keys, counted, strict=True))
    results: dict[str, Any] = {"per_operator": {}, "entry": {}}
    for (operator, transform, side, length), total in counts.items():
        if length == LONG:
            one = (total - counts[operator, transform, side, SHORT]) / (LONG - SHORT)
            row = results["per_operator"].setdefault(f"{operator}, {transform}", {})
            row[side] = round(one)
        elif length == 0 and transform:
            row = results["entry"].setdefault(transform, {})
            row[side] = total - counts[NOTHING]
    return results


def tables(results: dict[str, Any]) -> str:
    """Instructions per operator, then of the entry."""
    if "note" in results:
        return results["note"]
    sides = (BY_HAND, OURS, TORCH_FUNC)
    parts = []
    for what, title in (("per_operator", "Per operator"), ("entry", "Entry")):
        rows = [
            [name, *(f"{of[side]:,}" for side in sides)]
            + [f"{of[OURS] / of[BY_HAND]:.2f}", f"{of[TORCH_FUNC] / of[OURS]:.2f}"]
            for name, of in sorted(results[what].items(), key=_order)
        ]
        heads = [*sides, f"{OURS} / {BY_HAND}", f"{TORCH_FUNC} / {OURS}"]
        parts.append(table([f"{title}, instructions", *heads], rows))
    return "\n\n".join(parts)


def _order(row: tuple[str, dict[str, int]]) -> int:
    operators = [name for name in OPERATORS if row[0].startswith(name)]
    return list(OPERATORS).index(operators[0]) if operators else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--count"]:
        count(run for _, run in cases())
    else:
        run_part("instructions", __doc__, measure, tables)
