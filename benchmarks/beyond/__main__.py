"""What is built on the transforms, beside what one would write without it, and beside its peers.

Each row: the times of all who compute it, in turns, the peak memory of the plain form and of ours,
and how far these are apart in float64, relative to the greatest number.

python -m benchmarks.beyond [--only WORD] [--rounds 11] [--write docs/beyond.md]

JAX, folx and Opacus take part if they can be imported, from requirements-bench.txt or from folders
on PYTHONPATH.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from benchmarks.beyond import curvature, rules, samples, traces
from benchmarks.beyond.case import JIT, OURS, PLAIN, Case
from benchmarks.memory import MIB, peak_of
from benchmarks.page import replace
from benchmarks.peers import JAX_JIT, OPACUS, TORCH_FUNC, Peers, as_torch
from benchmarks.report import environment, table
from benchmarks.run import use_threads
from benchmarks.timing import measure

CASES = [*curvature.CASES, *traces.CASES, *samples.CASES, *rules.CASES]
WAYS = (PLAIN, OURS, JIT, TORCH_FUNC, JAX_JIT, OPACUS)
HEAD = ["Function; plain form", *(f"{way}, ms" for way in WAYS)]
HEAD += ["plain / ours", "plain, MiB", "ours, MiB", "error"]
SECONDS_PER_ROW = 3


def distance(build: Callable[[Peers], Any]) -> float:
    """How far apart the plain form and ours are in float64, relative to the greatest number."""
    torch.set_default_dtype(torch.float64)
    try:
        runs = build(Peers(()))
        plain, ours = ([x.to_dense() for x in pytree.tree_leaves(runs[k]())] for k in (PLAIN, OURS))
    finally:
        torch.set_default_dtype(torch.float32)
    greatest = max(each.abs().max() for each in plain)
    return max(float((a - b).abs().max() / greatest) for a, b in zip(plain, ours, strict=True))


def _numbers(result: Any) -> list[torch.Tensor]:
    if isinstance(result, dict):
        result = [result[name] for name in sorted(result)]
    return [x.to_dense() for x in pytree.tree_leaves(as_torch(result))]


def is_right(run: Callable[[], Any], ours: Callable[[], Any]) -> bool:
    """Does a peer compute what we do? It may have other parts, which aren't compared then."""
    found, expected = _numbers(run()), _numbers(ours())
    if [x.shape for x in found] != [x.shape for x in expected]:
        return True
    greatest = max(float(x.abs().max()) for x in expected)
    return all(float((a - b).abs().max()) <= 1e-3 * greatest for a, b in zip(found, expected))


def row(case: Case, rounds: int) -> list[str]:
    """The cells of a case."""
    torch.manual_seed(0)
    error = f"{distance(case.build):.0e}" if case.is_same else ""
    torch.manual_seed(0)
    found = case.build(Peers())
    cells = dict.fromkeys(WAYS, "")
    runs = {}
    for way in (way for way in WAYS if way in found):
        try:
            cells[way] = "" if not case.is_same or is_right(found[way], found[OURS]) else "wrong"
        except Exception as error:  # a peer that can't
            print(f"{case.function}, {way}: {error}", file=sys.stderr)
            cells[way] = "raises"
        if not cells[way]:
            runs[way] = found[way]
    timings = measure(runs, OURS, rounds, seconds_in_all=SECONDS_PER_ROW)
    cells |= {way: f"{timing.seconds * 1e3:.2f}" for way, timing in timings.items()}
    times = list(cells.values())
    memory = [f"{peak_of(found[way]) / MIB:.2f}" for way in (PLAIN, OURS)]
    ratio = f"{timings[PLAIN].ratio:.2f}"
    return [f"{case.function}; {case.plain}", *times, ratio, *memory, error]


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="the functions whose names contain this")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--write", type=Path, help="a page whose table to fill")
    arguments = parser.parse_args()
    use_threads(1)
    rows = []
    for case in CASES:
        if arguments.only.lower() in case.function.lower():
            rows.append(row(case, arguments.rounds))
            print(f"| {' | '.join(rows[-1])} |", flush=True)
    where = environment()
    versions = {"torch": where["torch"], **where["peers"]}
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = f"{where['machine']}; {named}; one thread.\n\n{table(HEAD, rows)}"
    if arguments.write:
        replace(arguments.write, {"beyond": text})
    else:
        print(f"\n{text}")


if __name__ == "__main__":
    main()
