"""Times networks of real size in their users' roles, and takes their peak memory on a GPU.

python -m benchmarks.real [--only WORD] [--use WORD] [--device cpu|cuda] [--threads 1|all]
                          [--seconds 6] [--output build/benchmarks/real.json]

A cell is a contender's time as a multiple of functorch_ext's. "batch gradient" is plain autograd's
gradient of the whole batch, less than which per-sample gradients can't take.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from benchmarks.part import FOLDER
from benchmarks.peers import (
    BY_HAND,
    JAX_JIT,
    LOOP,
    OPACUS,
    OURS,
    OURS_JIT,
    TORCH_FUNC,
    Peers,
    as_torch,
)
from benchmarks.real import geometry, language, vision
from benchmarks.real.tables import COLUMNS, cells
from benchmarks.real.task import Entry
from benchmarks.real.uses import LIMIT, USES
from benchmarks.report import environment
from benchmarks.run import use_threads
from benchmarks.timing import measure

ENTRIES: list[Entry] = [*vision.ENTRIES, *language.ENTRIES, *geometry.ENTRIES]


def peak_memory(run: Any) -> float:
    """The most MiB that a call holds on the GPU beyond what is there before it."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = run()
    torch.cuda.synchronize()
    del result
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def check_alike(name: str, result: Any, expected: Any) -> None:
    """Raises an AssertionError unless the numbers are the same as a whole, within 2 %.

    Rounding decides on which side of a kink of ReLU a number lies, so single ones may differ.
    """
    if isinstance(expected, dict):  # JAX sorts the names, others keep the order of the parameters.
        assert result.keys() == expected.keys(), f"{name}: it returns other names"
        result = {key: result[key] for key in expected}
    found, wanted = (pytree.tree_leaves(as_torch(tree)) for tree in (result, expected))
    apart = sum((a - b).double().square().sum() for a, b in zip(found, wanted, strict=True))
    size = sum(b.double().square().sum() for b in wanted)
    assert size > 0, f"{name}: all numbers are zero, which tell nothing"
    assert apart <= 0.02**2 * size, f"{name}: its numbers differ by {(apart / size).sqrt():.1%}"


def run_entry(entry: Entry, use: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The times of one network in one role, by contender; why one failed, instead."""
    torch.manual_seed(0)
    on_gpu = arguments.device == "cuda"
    names = {OURS, TORCH_FUNC, BY_HAND, OPACUS, OURS_JIT, JAX_JIT, LIMIT}
    if not on_gpu:  # A loop launches each sample's kernels by themselves: seconds on a GPU.
        names.add(LOOP)
    peers = Peers(names, arguments.device)
    with torch.device(arguments.device):
        task = entry.build(entry.on_gpu if on_gpu else entry.samples)
        ways = USES[use](task, peers)
    contenders = {name: run for name, run in ways.items() if name in names}
    failed, memory = {}, {}
    for name, run in list(contenders.items()):
        try:
            run()
            if on_gpu and name != JAX_JIT:  # It has an allocator of its own.
                memory[name] = peak_memory(run)
            if name not in (OURS, LIMIT):
                check_alike(name, run(), contenders[OURS]())
        except Exception as error:  # a peer that can't take this network is a cell of the table
            if name == OURS:
                raise
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            del contenders[name]
    timings = measure(
        contenders, OURS, 20, seconds_in_all=arguments.seconds, device=arguments.device
    )
    return {
        "samples": len(task.goal),
        "seconds": timings[OURS].seconds,
        "ratios": {name: timing.ratio for name, timing in timings.items()},
        "failed": failed,
        "memory": memory,
    }


def with_memory(result: dict[str, Any]) -> list[str]:
    """A row of the table, with peak memory where it is known."""
    row = cells(result, COLUMNS)
    if memory := result["memory"]:
        row += [f"{memory[OURS]:.0f}", f"{memory[TORCH_FUNC]:.0f}" if TORCH_FUNC in memory else ""]
    return row


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="the networks whose names contain this")
    parser.add_argument("--use", default="", help="the uses whose names contain this")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", choices=("1", "all"), default="1")
    parser.add_argument("--seconds", type=float, default=6, help="for one network in one use")
    parser.add_argument("--output", type=Path, default=FOLDER / "real.json")
    arguments = parser.parse_args()
    use_threads(1 if arguments.threads == "1" else os.cpu_count() or 1)
    head = ["Network", "samples", f"{OURS}, ms", *COLUMNS]
    if arguments.device == "cuda":
        head += ["MiB", f"MiB, {TORCH_FUNC}"]
    results: dict[str, Any] = {}
    for use in USES:
        if arguments.use.lower() not in use.lower():
            continue
        print(f"\n### {use}\n\n| {' | '.join(head)} |\n|{' --- |' * len(head)}", flush=True)
        for entry in ENTRIES:
            if arguments.only.lower() not in entry.name.lower():
                continue
            try:
                result = run_entry(entry, use, arguments)
            except Exception as error:  # the others are still worth measuring
                print(f"| {entry.name} | {type(error).__name__}: {error} |", flush=True)
                continue
            results.setdefault(use, {})[entry.name] = result
            print(f"| {' | '.join([entry.name, *with_memory(result)])} |", flush=True)
            for name, reason in result["failed"].items():
                print(f"  {name}: {reason}", flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {"device": arguments.device, "threads": torch.get_num_threads()}
    report = {**environment(), **settings, "uses": results}
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
