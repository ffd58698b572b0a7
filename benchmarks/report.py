"""Results as Markdown tables, and what they depend on."""

import os
import platform
from importlib import metadata
from typing import Any

import torch

from benchmarks.peers import ALL, BY_HAND, OURS, TORCH_FUNC

Result = dict[str, Any]  # What benchmarks.run.run_workload returns.


def environment() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.machine()}",
        "devices": [torch.cuda.get_device_name()] if torch.cuda.is_available() else [],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "peers": {
            name: version for name in ("opacus", "jax", "folx") if (version := _version(name))
        },
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown processor"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table: the first column is text, the others are numbers."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TARGETS_HEAD = ["Workload", f"{OURS}, µs", f"× faster than {TORCH_FUNC}", "× by hand", "Target"]


def targets_row(name: str, result: Result) -> list[str]:
    """One workload beside torch.func and the code by hand, and whether its targets are reached."""
    timings = result["timings"]
    by_hand = f"{1 / timings[BY_HAND]['ratio']:.2f}" if BY_HAND in timings else ""
    targets = [
        f"{verdict['target']}: {'reached' if verdict['reached'] else '**missed**'}"
        for verdict in result["verdicts"]
    ]
    return [
        name,
        microseconds(timings[OURS]["seconds"]),
        f"{timings[TORCH_FUNC]['ratio']:.2f}",
        by_hand,
        "; ".join(targets),
    ]


def peers_table(workloads: dict[str, Result]) -> str:
    """All peers' times relative to ours."""
    present = [peer for peer in ALL if any(peer in w["timings"] for w in workloads.values())]
    rows = [
        [name, microseconds(result["timings"][OURS]["seconds"])]
        + [
            f"{result['timings'][peer]['ratio']:.2f}" if peer in result["timings"] else ""
            for peer in present
            if peer != OURS
        ]
        for name, result in workloads.items()
    ]
    return table(["Workload", f"{OURS}, µs", *(p for p in present if p != OURS)], rows)


def microseconds(seconds: float) -> str:
    """Three digits at least of what is short."""
    return f"{seconds * 1e6:.1f}" if seconds < 1e-4 else f"{seconds * 1e6:.0f}"
