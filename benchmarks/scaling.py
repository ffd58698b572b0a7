"""How cost grows: with the batch, with the depth of nesting, and with the number of operators.

Each series varies one of them. All its sizes and sides take turns within the same rounds, so that a
machine that gets busier meanwhile doesn't bend the curve. Where the number of operators varies, the
last column is what one more of them costs: it stays as it is if the cost is linear.

python -m benchmarks.scaling [--output build/benchmarks/scaling.json]
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import functorch_ext
from benchmarks.part import run_part
from benchmarks.peers import BY_HAND, OURS, TORCH_FUNC
from benchmarks.report import microseconds, table
from benchmarks.timing import Contenders, measure
from benchmarks.workloads.pointwise import gradient_by_autograd

ROUNDS = 15
OPERATORS = 40
BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
DEPTHS_OF_VMAP = (1, 2, 3, 4, 5, 6, 7, 8)
DEPTHS_OF_GRAD = (1, 2, 3, 4, 5, 6)
LENGTHS = (10, 40, 160, 640, 2560, 10240)

Function = Callable[[Tensor], Tensor]


def sines(length: int) -> Function:
    """So many operators."""

    def run(x: Tensor) -> Tensor:
        for _ in range(length):
            x = x.sin()
        return x

    return run


def _contenders(
    make: Callable[[ModuleType], Function], by_hand: Function | None, x: Tensor
) -> Contenders:
    functions = {OURS: make(functorch_ext), TORCH_FUNC: make(torch.func), BY_HAND: by_hand}
    return {name: lambda func=func: func(x) for name, func in functions.items() if func is not None}


def of_batch(batch: int) -> Contenders:
    """Samples of 8 numbers, for vmap(grad) of 40 operators."""
    func = lambda x: sines(OPERATORS)(x).sum()
    make = lambda library: library.vmap(library.grad(func))
    return _contenders(make, lambda x: gradient_by_autograd(func, x), torch.rand(batch, 8))


def of_vmap_depth(depth: int) -> Contenders:
    """vmap(vmap(...)) of 40 operators, 2 samples at each level."""

    def make(library: ModuleType) -> Function:
        func = sines(OPERATORS)
        for _ in range(depth):
            func = library.vmap(func)
        return func

    return _contenders(make, sines(OPERATORS), torch.rand(*[2] * depth, 4))


def of_grad_depth(depth: int) -> Contenders:
    """grad(grad(...)) of x²x²x²; each level has more operators than the one inside it."""

    def cube(x: Tensor) -> Tensor:
        return (x * x) * (x * x) * (x * x)

    def make(library: ModuleType) -> Function:
        func = cube
        for _ in range(depth):
            func = library.grad(func)
        return func

    def by_hand(x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        value = cube(leaf)
        for level in range(depth):
            (value,) = torch.autograd.grad(value, leaf, create_graph=level + 1 < depth)
        return value

    return _contenders(make, by_hand, torch.tensor(0.7))


def of_length(length: int) -> Contenders:
    """So many operators under vmap."""
    return _contenders(lambda library: library.vmap(sines(length)), sines(length), torch.rand(4, 8))


def of_length_differentiated(length: int) -> Contenders:
    """So many operators under vmap(grad)."""
    func = lambda x: sines(length)(x).sum()
    make = lambda library: library.vmap(library.grad(func))
    return _contenders(make, lambda x: gradient_by_autograd(func, x), torch.rand(4, 8))


SERIES: dict[str, tuple[str, Callable[[int], Contenders], tuple[int, ...]]] = {
    "vmap(grad) of 40 operators, by batch": ("batch", of_batch, BATCHES),
    "nested vmap of 40 operators, by depth": ("depth", of_vmap_depth, DEPTHS_OF_VMAP),
    "nested grad of x⁶, by depth": ("depth", of_grad_depth, DEPTHS_OF_GRAD),
    "vmap, by number of operators": ("operators", of_length, LENGTHS),
    "vmap(grad), by number of operators": ("operators", of_length_differentiated, LENGTHS),
}


def measure_all() -> dict[str, Any]:
    """The seconds of each side, for each size of each series.

    Returns:
        By series: ``unit``, ``sizes``, and ``seconds`` with a list for each side.
    """
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name, (unit, make, sizes) in SERIES.items():
        contenders = {(side, size): run for size in sizes for side, run in make(size).items()}
        reference = (OURS, sizes[len(sizes) // 2])
        timings = measure(contenders, reference, ROUNDS)
        unit_seconds = timings[reference].seconds
        seconds: dict[str, list[float]] = {}
        for (side, _), timing in timings.items():
            seconds.setdefault(side, []).append(timing.ratio * unit_seconds)
        results[name] = {"unit": unit, "sizes": list(sizes), "seconds": seconds}
    return results


def tables(results: dict[str, Any]) -> str:
    """One table for each series. Where the number of operators varies, with the cost of each."""
    return "\n\n".join(_series(name, series) for name, series in results.items())


def _series(name: str, series: dict[str, Any]) -> str:
    per_operator = series["unit"] == "operators"
    sizes, seconds = series["sizes"], series["seconds"]
    rows = []
    for index, size in enumerate(sizes):
        row = [str(size), *(microseconds(times[index]) for times in seconds.values())]
        if per_operator:
            ours = seconds[OURS]
            more = (ours[index] - ours[index - 1]) / (size - sizes[index - 1]) if index else None
            row.append("" if more is None else f"{more * 1e6:.2f}")
        rows.append(row)
    head = [series["unit"], *(f"{side}, µs" for side in seconds)]
    if per_operator:
        head.append(f"{OURS}, µs for one more")
    return f"{name[0].upper()}{name[1:]}:\n\n{table(head, rows)}"


if __name__ == "__main__":
    run_part("scaling", __doc__, measure_all, tables)
