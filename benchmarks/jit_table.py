"""What ``benchmarks.jit`` measured, as tables."""

import math
import statistics
from typing import Any

from benchmarks.peers import JAX_JIT
from benchmarks.report import microseconds, table

EAGER, JIT = "eager", "jit"
COMPILE_OURS, COMPILE_TORCH_FUNC = "torch.compile(ours)", "torch.compile(torch.func)"
WAYS = (EAGER, JIT, COMPILE_OURS, COMPILE_TORCH_FUNC, JAX_JIT)

HEAD = ["µs a call (s of the first)", *WAYS, "jit, second process", "jit's memory / eager's"]


def cells(name: str, result: dict[str, Any]) -> list[str]:
    """One workload's row."""
    jit = result[JIT]
    memory = [result.get(way, {}).get("bytes") for way in (EAGER, JIT)]
    return [
        name,
        *(_cell(result.get(way, {})) for way in WAYS),
        f"{jit['again']:.2f} s" if jit.get("again") else "",
        f"{memory[1] / memory[0]:.2f}" if all(memory) else "",
    ]


def row(name: str, result: dict[str, Any]) -> str:
    """The same as a line."""
    return f"| {' | '.join(cells(name, result))} |"


def _cell(measured: dict[str, Any]) -> str:
    if "microseconds" not in measured:
        return measured.get("failure", "")
    first = f" ({measured['seconds']:.1f})" if "seconds" in measured else ""
    return microseconds(measured["microseconds"] * 1e-6) + first


def tables(results: dict[str, Any]) -> str:
    """All workloads, and what they come to."""
    workloads = results["workloads"]
    versions = {"Python": results["python"], "torch": results["torch"], **results["peers"]}
    versions.pop("opacus", None)
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        f"{results['machine']}; {named}; one thread.",
        table(HEAD, [cells(*item) for item in workloads.items()]),
        table(["jit's time / that of", "geometric mean", "greatest", "of"], _ratios(workloads)),
        table(["First call, s", "median", "greatest"], _first_calls(workloads)),
    ]
    return "\n\n".join(lines)


def _ratios(workloads: dict[str, Any]) -> list[list[str]]:
    rows = []
    for way in WAYS:
        ratios = {
            name: 1 / result[way]["jits"]
            for name, result in workloads.items()
            if way != JIT and "jits" in result.get(way, {})
        }
        if ratios:
            mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
            worst = max(ratios, key=lambda name: ratios[name])
            rows.append([way, f"{mean:.2f}", f"{ratios[worst]:.2f} ({worst})", str(len(ratios))])
    return rows


def _first_calls(workloads: dict[str, Any]) -> list[list[str]]:
    def rows() -> Any:
        for way in WAYS[1:]:
            yield (
                way,
                [r[way]["seconds"] for r in workloads.values() if "seconds" in r.get(way, {})],
            )
        yield (
            "jit, second process",
            [r[JIT]["again"] for r in workloads.values() if r[JIT].get("again")],
        )

    return [
        [name, f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}"]
        for name, seconds in rows()
        if seconds
    ]
