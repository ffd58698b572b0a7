"""Times the workloads, prints tables of them and writes them as JSON.

python -m benchmarks [--only WORD] [--peers quick|all] [--threads 1|all|both]
                     [--device cpu|cuda|all] [--rounds 30] [--output build/benchmarks/times.json]
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import ALL, QUICK, Peers
from benchmarks.report import TARGETS_HEAD, environment, peers_table, table, targets_row
from benchmarks.run import run_workload, use_threads
from benchmarks.workloads import WORKLOADS


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Times the transforms beside their peers.")
    parser.add_argument("--only", default="", help="the workloads whose names contain this")
    parser.add_argument("--peers", choices=("quick", "all"), default="quick")
    parser.add_argument("--threads", choices=("1", "all", "both"), default="1")
    parser.add_argument("--device", choices=("cpu", "cuda", "all"), default="cpu")
    parser.add_argument("--rounds", type=int, default=30, help="how often each gets its turn")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/times.json"))
    return parser.parse_args(arguments)


def settings(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Pairs of a device and a choice of threads. On "cuda" one thread launches everything."""
    threads = ("1", "all") if arguments.threads == "both" else (arguments.threads,)
    pairs = []
    if arguments.device in ("cpu", "all"):
        pairs += [("cpu", choice) for choice in threads]
    if arguments.device == "cuda" or (arguments.device == "all" and torch.cuda.is_available()):
        pairs.append(("cuda", "1"))
    return pairs


def run_one(arguments: argparse.Namespace, device: str, threads: str) -> dict[str, Any]:
    """Runs all workloads under one setting, printing each when it is measured."""
    use_threads(1 if threads == "1" else len(os.sched_getaffinity(0)))
    print(f"\n### {device}, {torch.get_num_threads()} thread(s)\n")
    print(table(TARGETS_HEAD, []), flush=True)
    peers = Peers(ALL if arguments.peers == "all" else QUICK, device)
    results = {}
    for workload in WORKLOADS:
        if arguments.only in workload.name:
            results[workload.name] = run_workload(workload, peers, arguments.rounds)
            print(
                f"| {' | '.join(targets_row(workload.name, results[workload.name]))} |", flush=True
            )
    if arguments.peers == "all":
        print("\nAll peers, as multiples of functorch_ext's time (2 is twice as long):")
        print(f"\n{peers_table(results)}")
    for name, reason in peers.missing.items():
        print(f"\nLeft out: {name} ({reason})")
    return {"device": device, "threads": torch.get_num_threads(), "workloads": results}


def run_all(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One process for each setting: JAX can't change its number of threads afterwards."""
    pairs = settings(arguments)
    if len(pairs) == 1:
        return [run_one(arguments, *pairs[0])]
    results = []
    for device, threads in pairs:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks"]
        command += ["--device", device, "--threads", threads]
        for option in ("only", "peers", "rounds", "output"):
            command += [f"--{option}", str(getattr(arguments, option))]
        subprocess.run(command, check=True)
        results += json.loads(arguments.output.read_text())["settings"]
    return results


def main() -> None:
    """Runs what the command line asks for."""
    arguments = parse()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    results = {**environment(), "rounds": arguments.rounds, "settings": run_all(arguments)}
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
