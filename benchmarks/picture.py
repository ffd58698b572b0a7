"""The results as a picture: times beside the peers', growth of cost, and peak memory."""

import re
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # Draws into a file; no display is needed.

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.memory import MIB
from benchmarks.peers import BY_HAND, FUNCTIONAL, JAX, JAX_JIT, LOOP, OPACUS, OURS, TORCH_FUNC

# Colour and marker of each, told apart by those who don't see all colours too.
STYLES = {
    OURS: ("#0072b2", "o"),
    TORCH_FUNC: ("#d55e00", "s"),
    BY_HAND: ("#009e73", "^"),
    LOOP: ("#999999", "x"),
    FUNCTIONAL: ("#cc79a7", "D"),
    OPACUS: ("#e69f00", "v"),
    JAX: ("#56b4e9", "<"),
    JAX_JIT: ("#000000", ">"),
}
# The last three keep an SVG small, and the same from the same results.
SETTINGS = {
    "font.size": 8,
    "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
}
GROWTH = {
    "vmap(grad) of 40 operators, by batch": "samples",
    "nested vmap of 40 operators, by depth": "nested vmaps",
    "vmap(grad), by number of operators": "operators under vmap(grad)",
}


def picture(results: dict[str, Any], path: Path) -> None:
    """Draws all results into one file, whose ending says in which format."""
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplot_mosaic(
            [["times", "batch"], ["times", "depth"], ["times", "operators"], ["times", "memory"]],
            figsize=(12, 11),
            width_ratios=[3, 2],
            layout="constrained",
        )
        _draw_times(axes["times"], results["times"]["settings"][0]["workloads"])
        for name, (series, label) in zip(("batch", "depth", "operators"), GROWTH.items()):
            _draw_growth(axes[name], results["scaling"][series], label)
        _draw_memory(axes["memory"], results["memory"])
        metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=120, metadata=metadata)
        plt.close(figure)
    if path.suffix == ".svg":
        # A tenth of a point is fine enough, and nobody reads the indentation.
        text = re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", path.read_text())
        path.write_text(re.sub(r" *\n *", "\n", text))


def _draw_times(axes: Axes, workloads: dict[str, Any]) -> None:
    """One row for each workload, one mark for each peer."""
    rows = range(len(workloads))
    for peer, (color, marker) in STYLES.items():
        points = [
            (result["timings"][peer]["ratio"], row)
            for row, result in zip(rows, workloads.values())
            if peer in result["timings"] and peer != OURS
        ]
        if points:
            axes.scatter(*zip(*points), color=color, marker=marker, label=peer, s=24, zorder=3)
    axes.axvline(1, color=STYLES[OURS][0], label=OURS)
    axes.set_xscale("log")
    axes.set_yticks(rows, workloads)
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.set_title(f"Time relative to {OURS}'s, one thread: right of the line is slower")
    axes.legend(loc="upper center", bbox_to_anchor=(0.3, -0.04), ncols=4)


def _draw_growth(axes: Axes, series: dict[str, Any], label: str) -> None:
    for side, seconds in series["seconds"].items():
        color, marker = STYLES[side]
        times = [second * 1e6 for second in seconds]
        axes.plot(series["sizes"], times, color=color, marker=marker, markersize=4, label=side)
    if series["unit"] != "depth":
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
    axes.set_ylim(bottom=0 if series["unit"] == "depth" else None)
    axes.set_xlabel(label)
    axes.set_ylabel("µs")
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_memory(axes: Axes, peaks: dict[str, dict[str, int]]) -> None:
    height = 0.8 / 3
    for index, side in enumerate((LOOP, OURS, TORCH_FUNC)):
        places = [row + (index - 1) * height for row in range(len(peaks))]
        mib = [by_side[side] / MIB for by_side in peaks.values()]
        axes.barh(places, mib, height, color=STYLES[side][0], label=side)
    axes.set_xscale("log")
    axes.set_yticks(range(len(peaks)), [name.replace(", ", "\n", 1) for name in peaks], fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("peak memory, MiB")
    axes.legend()
