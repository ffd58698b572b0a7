"""Times jit beside eager transforms, torch.compile and JAX's jit, workload by workload.

Of each way the first call is timed, which traces and compiles, in a process of its own; jit's once
more in another process, which finds the first one's kernels on disk. Caches hold nothing else but
the headers that Inductor precompiles once on a machine. The seconds are the processor's. Then all
ways are called in turn in one process, on one thread. The memory is the peak of a call.

python -m benchmarks.jit [--only WORD] [--rounds 15] [--write docs/jit.md]

JAX takes part if it can be imported, from requirements-bench.txt or from a folder on PYTHONPATH.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import functorch_ext
from benchmarks.jit_table import COMPILE_OURS, COMPILE_TORCH_FUNC, EAGER, JIT, WAYS, row, tables
from benchmarks.memory import peak_of
from benchmarks.part import FOLDER
from benchmarks.peers import JAX_JIT, OURS, TORCH_FUNC, Peers, as_torch
from benchmarks.report import environment
from benchmarks.run import use_threads
from benchmarks.timing import measure
from benchmarks.workloads import WORKLOADS

LONGEST_FIRST_CALL = 180  # seconds, of a process that is stopped then


def build(workload: str, ways: list[str]) -> dict[str, Callable[[], Any]]:
    """The ways to compute a workload, those that there are."""
    use_threads(1)
    torch.manual_seed(0)
    found = next(w for w in WORKLOADS if w.name == workload).build(
        Peers((OURS, TORCH_FUNC, JAX_JIT))
    )
    made = {
        EAGER: lambda: found[OURS],
        JIT: lambda: functorch_ext.jit(found[OURS]),
        COMPILE_OURS: lambda: torch.compile(found[OURS]),
        COMPILE_TORCH_FUNC: lambda: torch.compile(found[TORCH_FUNC]),
        JAX_JIT: lambda: found[JAX_JIT],
    }
    return {way: made[way]() for way in ways if way != JAX_JIT or JAX_JIT in found}


def first_call(workload: str, way: str) -> dict[str, Any]:
    """The seconds of the first call, and whether its result is eager's."""
    runs = build(workload, [EAGER, way])
    if way not in runs:
        return {}
    expected = runs[EAGER]()
    start = sum(os.times()[:4])  # of this process and its compilers: others don't count
    found = runs[way]()
    seconds = sum(os.times()[:4]) - start
    try:
        torch.testing.assert_close(as_torch(found), as_torch(expected), rtol=1e-4, atol=1e-5)
    except AssertionError:
        return {"failure": "wrong"}
    return {"seconds": seconds}


def later_calls(workload: str, ways: list[str], rounds: int) -> dict[str, Any]:
    """Each way's time, alone and relative to jit's in the same round, and its peak memory."""
    runs = build(workload, ways)
    timings = measure(runs, JIT, rounds, seconds_in_all=10)
    return {
        way: {"microseconds": timing.seconds * 1e6, "jits": timing.ratio}
        | ({"bytes": peak_of(runs[way])} if way in (EAGER, JIT) else {})
        for way, timing in timings.items()
    }


def _in_process(cache: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.jit", *arguments]
    one_thread = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    variables = {**os.environ, **one_thread, "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=variables,
            timeout=LONGEST_FIRST_CALL,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"more than {LONGEST_FIRST_CALL} s"}
    except subprocess.CalledProcessError as error:
        return {"failure": "error", "message": error.stderr[-2000:]}
    return json.loads(done.stdout.splitlines()[-1])


def measure_workload(name: str, rounds: int, headers: Path) -> dict[str, Any]:
    """By way: the seconds of first calls and the time of later ones, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        found = {}
        for way in WAYS[1:]:
            shutil.copytree(headers, cache / way)
            if result := _in_process(cache / way, "--first", name, way):
                found[way] = result
        found[JIT]["again"] = _in_process(cache / JIT, "--first", name, JIT).get("seconds")
        ways = [EAGER, *(way for way, result in found.items() if "seconds" in result)]
        later = _in_process(cache / JIT, "--later", name, str(rounds), *ways)
        if "failure" in later:
            return {JIT: later}
        return {way: {**found.get(way, {}), **later.get(way, {})} for way in WAYS}


def precompile_headers() -> None:
    """Compiles something of each kind, so that the headers that it includes are compiled too."""
    x = torch.ones(8)
    functorch_ext.jit(torch.sin)(x)
    torch.compile(torch.cos)(x)
    print("{}")


def main() -> None:
    """Measures, prints and writes; or is a process that measures one thing."""
    if sys.argv[1:2] == ["--first"]:
        print(json.dumps(first_call(*sys.argv[2:4])))
        return
    if sys.argv[1:2] == ["--later"]:
        print(json.dumps(later_calls(sys.argv[2], sys.argv[4:], int(sys.argv[3]))))
        return
    if sys.argv[1:2] == ["--headers"]:
        precompile_headers()
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="the workloads whose names contain this")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=FOLDER / "jit.json")
    parser.add_argument("--write", type=Path, help="a page whose table to fill")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    if arguments.only and arguments.output.exists():  # the others keep what they have
        results = json.loads(arguments.output.read_text())["workloads"]
    with tempfile.TemporaryDirectory() as headers:
        _in_process(Path(headers), "--headers")
        for name in (w.name for w in WORKLOADS if arguments.only.lower() in w.name.lower()):
            results[name] = measure_workload(name, arguments.rounds, Path(headers))
            print(row(name, results[name]), flush=True)
    whole = {**environment(), "workloads": results}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(whole, indent=2) + "\n")
    print(f"\n{tables(whole)}")
    if arguments.write:
        from benchmarks.page import replace

        replace(arguments.write, {"jit": tables(whole)})


if __name__ == "__main__":
    main()
