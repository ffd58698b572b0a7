"""Times jit beside eager transforms and torch.compile of torch.func's, workload by workload.

python -m benchmarks.jit [--only WORD] [--rounds 15] [--without-compile]

Ratios are those of one run, on one thread; the first call of each, which compiles, is timed apart.
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch

import functorch_ext
from benchmarks.peers import OURS, TORCH_FUNC, Peers
from benchmarks.report import table
from benchmarks.timing import assert_equal_results, measure
from benchmarks.workloads import WORKLOADS

JIT, COMPILE = "jit", "torch.compile(torch.func)"
HEAD = ["Workload", "eager", "jit", "jit / eager", "jit / torch.compile", "first calls, s"]


def first_call(function: Callable[[], Any]) -> float:
    """The seconds of a call that traces and compiles."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def row_of(workload: Any, rounds: int, with_compile: bool) -> tuple[list[str], dict[str, float]]:
    """The row of a workload's table, and its ratios."""
    built = workload.build(Peers((OURS, TORCH_FUNC)))
    contenders = {OURS: built[OURS], JIT: functorch_ext.jit(built[OURS])}
    if with_compile:
        contenders[COMPILE] = torch.compile(built[TORCH_FUNC])
    with torch.no_grad():
        seconds = {name: first_call(run) for name, run in contenders.items() if name != OURS}
        assert_equal_results(contenders, OURS)
        timings = measure(contenders, JIT, rounds, seconds_in_all=20)
    ratios = {name: 1 / timings[name].ratio for name in contenders if name != JIT}
    micro = {name: f"{timing.seconds * 1e6:.1f} µs" for name, timing in timings.items()}
    compared = f"{ratios[COMPILE]:.2f}" if with_compile else ""
    first = " / ".join(f"{each:.1f}" for each in seconds.values())
    row = [workload.name, micro[OURS], micro[JIT], f"{ratios[OURS]:.2f}", compared, first]
    return row, ratios


def main() -> None:
    """Prints the table, and the geometric means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="the workloads whose names contain this")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--without-compile", action="store_true", help="leave torch.compile out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(table(HEAD, []), flush=True)
    all_ratios: dict[str, list[float]] = {}
    for workload in WORKLOADS:
        if arguments.only.lower() not in workload.name.lower():
            continue
        try:
            row, ratios = row_of(workload, arguments.rounds, not arguments.without_compile)
        except Exception as error:  # a workload that a compiler can't take is a row of the table
            row, ratios = [workload.name, f"{type(error).__name__}", "", "", "", ""], {}
        print("| " + " | ".join(row) + " |", flush=True)
        for name, ratio in ratios.items():
            all_ratios.setdefault(name, []).append(ratio)
    for name, ratios_of_all in all_ratios.items():
        mean = math.exp(sum(map(math.log, ratios_of_all)) / len(ratios_of_all))
        print(f"\njit's time / {name}'s: {mean:.2f} (geometric mean of {len(ratios_of_all)})")


if __name__ == "__main__":
    main()
