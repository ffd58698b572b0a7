"""Runs the benchmarks, prints a table and writes it as JSON.

python -m benchmarks [--only WORD] [--rounds 50] [--output build/benchmarks.json]
"""

import argparse
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Timing, assert_equal_results, measure
from benchmarks.workloads import BY_HAND, OURS, PEER, all_workloads


def environment() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def row(name: str, timings: dict[str, Timing]) -> str:
    """One workload as a row of a Markdown table: the time of ours, the others relative to it."""
    cells = [
        f"{timings[contender].ratio:.2f}" if contender in timings else ""
        for contender in (PEER, BY_HAND)
    ]
    return f"| {name} | {timings[OURS].seconds * 1e6:.0f} | {' | '.join(cells)} |"


def main(only: str, rounds: int, output: Path) -> None:
    """Measures the workloads whose names contain ``only``."""
    torch.set_num_threads(1)
    print(f"| Workload | {OURS}, µs | {PEER}, relative | {BY_HAND}, relative |")
    print("| --- | ---: | ---: | ---: |")
    workloads = {}
    for workload in all_workloads():
        if only not in workload.name:
            continue
        assert_equal_results(workload.contenders, OURS)
        timings = measure(workload.contenders, OURS, rounds)
        workloads[workload.name] = {name: asdict(timing) for name, timing in timings.items()}
        print(row(workload.name, timings), flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    results = {**environment(), "rounds": rounds, "reference": OURS, "workloads": workloads}
    output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compares the transforms with torch.func.")
    parser.add_argument("--only", default="", help="run the workloads whose names contain this")
    parser.add_argument("--rounds", type=int, default=50, help="how often each gets its turn")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks.json"))
    arguments = parser.parse_args()
    main(arguments.only, arguments.rounds, arguments.output)
