"""Measures workloads under one setting: so many threads, on one device."""

import os
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.peers import ALL, OURS, Peers, as_torch
from benchmarks.timing import assert_equal_results, measure
from benchmarks.workload import Workload

SECONDS_PER_WORKLOAD = 6.0


def use_threads(threads: int) -> None:
    """Gives PyTorch, and JAX if it isn't imported yet, so many threads."""
    torch.set_num_threads(threads)
    os.environ["NPROC"] = str(threads)  # JAX reads both when it starts.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # of a GPU's memory


def run_workload(workload: Workload, peers: Peers, rounds: int) -> dict[str, Any]:
    """Checks that all peers compute the same, then times them.

    Returns:
        ``timings`` from peers' names to seconds and ratios; ``verdicts`` on the targets.

    Raises:
        AssertionError: a peer's result differs.
    """
    torch.manual_seed(0)
    with torch.device(peers.device):
        contenders = workload.build(peers)
    ordered = {name: contenders[name] for name in ALL if name in contenders.keys() & peers.names}
    assert_equal_results(ordered, OURS, as_torch)
    timings = measure(
        ordered, OURS, rounds, seconds_in_all=SECONDS_PER_WORKLOAD, device=peers.device
    )
    return {
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "verdicts": [asdict(verdict) for verdict in workload.target.verdicts(timings)],
    }
