"""The page's tables as pictures, readable on light and dark pages: times, peers, growth, memory.

python -m benchmarks.picture [docs/benchmarks.md | docs/jit.md]
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # Draws into a file; no display is needed.

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.peers import BY_HAND, FUNCTIONAL, JAX, JAX_JIT, LOOP, OPACUS, OURS, TORCH_FUNC
from benchmarks.real.uses import LIMIT

# Stand-ins for the page's colours, which the SVG gets as variables.
INK, FAINT = "#010203", "#040506"
LIGHT_AND_DARK = """<style>
svg.fx { --ink: #1f2328; --faint: #d0d7de; }
@media (prefers-color-scheme: dark) { svg.fx { --ink: #e6edf3; --faint: #3d444d; } }
</style>"""

# Colour and marker of each, told apart by those who don't see all colours too.
STYLES = {
    OURS: ("#2f7ed8", "o"),
    TORCH_FUNC: ("#e07b1a", "s"),
    BY_HAND: ("#2fa36b", "^"),
    LOOP: ("#909090", "x"),
    FUNCTIONAL: ("#c9508f", "D"),
    OPACUS: ("#a08c1e", "v"),
    JAX: ("#8a70d6", "<"),
    JAX_JIT: (INK, ">"),
    LIMIT: ("#d04545", "|"),
}
# The same for the page of jit, whose tables name these otherwise.
JIT = "jit"
JIT_STYLES = {
    JIT: STYLES[OURS],
    "eager": STYLES[LOOP],
    "torch.compile(ours)": STYLES[BY_HAND],
    "torch.compile(torch.func)": STYLES[TORCH_FUNC],
    "JAX, jit": STYLES[JAX],
}
SETTINGS = {
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    # These keep an SVG small, and the same from the same results.
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
}

Table = list[dict[str, str]]


def tables(page: Path, part: str) -> Iterator[Table]:
    """What stands between the marks of a part, one table after another."""
    text = page.read_text()
    (found,) = re.findall(rf"<!-- results: {part} -->(.*?)<!-- end -->", text, re.DOTALL)
    for block in re.findall(r"(?:^\|.*\n)+", found, re.MULTILINE):
        head, _, *rows = [
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in block.splitlines()
        ]
        yield [dict(zip(head, row)) for row in rows]


def pictures(page: Path) -> None:
    """Draws all of them beside the page, named after it."""
    with plt.rc_context(SETTINGS):
        for name, figure in figures_of_jit(page) if page.stem == "jit" else figures(page):
            save(figure, page.with_name(f"{page.stem}{name}.svg"))


def figures(page: Path) -> Iterator[tuple[str, Figure]]:
    peers = next(tables(page, "peers"))  # On one thread.
    yield "", times(peers)
    yield "-peers", multiples(peers)
    yield "-growth", growth(list(tables(page, "scaling")))
    yield "-memory", memory(next(tables(page, "memory")))
    yield "-models", multiples(next(tables(page, "models")))


def figures_of_jit(page: Path) -> Iterator[tuple[str, Figure]]:
    calls = next(tables(page, "jit"))
    for row in calls:
        ours = number(row[JIT])
        for peer in JIT_STYLES:
            time = number(row[peer])
            row[peer] = str(time / ours) if time and ours else ""
    yield "", multiples(calls, JIT, JIT_STYLES)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None, "Creator": None}, transparent=True)
    plt.close(figure)
    text = path.read_text()
    text = re.sub(r"<\?xml.*?(?=<svg)", "", text, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", LIGHT_AND_DARK, text, flags=re.DOTALL)
    text = text.replace("<svg ", '<svg class="fx" ', 1)
    text = text.replace(INK, "var(--ink, #555)").replace(FAINT, "var(--faint, #aaa)")
    # A tenth of a point is fine enough, and nobody reads the indentation.
    text = re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", text)
    path.write_text(re.sub(r" *\n *", "\n", text))


def number(cell: str) -> float | None:
    """The first number of a cell; none if something stands there in its place."""
    found = re.match(r"[\d.,]+", cell)
    return float(found[0].replace(",", "")) if found else None


def times(rows: Table) -> Figure:
    """How many times as long as ours torch.func takes, a bar for each workload."""
    figure, axes = plt.subplots(figsize=(8.4, 5.6), layout="constrained")
    ratios = [number(row[TORCH_FUNC]) or 0.0 for row in rows]
    places = range(len(rows))
    axes.barh(places, ratios, 0.62, color=STYLES[TORCH_FUNC][0])
    for place, ratio in zip(places, ratios):
        axes.text(ratio + 0.12, place, f"{ratio:.1f}", va="center")
    axes.axvline(1, color=STYLES[OURS][0], linewidth=2)
    axes.text(1.15, -0.85, f"{OURS} = 1", color=STYLES[OURS][0], va="center")
    axes.set_yticks(places, [row["Workload"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -1.4)
    axes.set_xlim(0, max(ratios) * 1.06)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"time of {TORCH_FUNC}, in multiples of {OURS}'s; one thread")
    return figure


def multiples(
    rows: Table, reference: str = OURS, styles: dict[str, tuple[str, str]] = STYLES
) -> Figure:
    """One row for each workload, one mark for each peer: its time, in multiples of a reference."""
    column = next(iter(rows[0]))
    figure, axes = plt.subplots(figsize=(8.4, 1.4 + len(rows) / 4), layout="constrained")
    for peer, (color, marker) in styles.items():
        points = [
            (ratio, place)
            for place, row in enumerate(rows)
            if peer != reference and (ratio := number(row.get(peer, ""))) is not None
        ]
        if points:
            axes.scatter(*zip(*points), color=color, marker=marker, label=peer, s=26, zorder=3)
    axes.axvline(1, color=styles[reference][0], linewidth=2, label=reference)
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set_yticks(range(len(rows)), [row[column] for row in rows])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="both")
    axes.set_xlabel(
        f"time in multiples of {reference}'s: left of the line is faster, right is slower"
    )
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def growth(series: list[Table]) -> Figure:
    """Microseconds by batch, by nesting and by number of operators; each line bears its name."""
    by_unit = {next(iter(rows[0])): rows for rows in reversed(series)}
    both = [rows for rows in series if next(iter(rows[0])) == "operators"][-1]
    panels = (
        (by_unit["batch"], "samples", "vmap(grad) of 40 operators"),
        (by_unit["depth"], "nested vmaps", "nested vmap of 40 operators"),
        (both, "operators", "vmap(grad), by number of operators"),
    )
    figure, all_axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    for axes, (rows, label, title) in zip(all_axes, panels):
        unit = next(iter(rows[0]))
        logarithmic = unit != "depth"
        sizes = [number(row[unit]) for row in rows]
        for side in (TORCH_FUNC, OURS, BY_HAND):
            color, marker = STYLES[side]
            values = [number(row[f"{side}, µs"]) for row in rows]
            axes.plot(sizes, values, color=color, marker=marker, markersize=4, label=side)
        if logarithmic:
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            plain_numbers(axes.xaxis)
            plain_numbers(axes.yaxis)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        else:
            axes.set_ylim(bottom=0)
        axes.set(xlabel=label, ylabel="µs", title=title)
        axes.grid()
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def memory(rows: Table) -> Figure:
    """Peak memory, three bars for each computation."""
    name_column = next(iter(rows[0]))
    figure, axes = plt.subplots(figsize=(8.4, 4), layout="constrained")
    height = 0.8 / 3
    for index, side in enumerate((LOOP, OURS, TORCH_FUNC)):
        places = [row + (index - 1) * height for row in range(len(rows))]
        mib = [number(row[side]) or 0.0 for row in rows]
        axes.barh(places, mib, height, color=STYLES[side][0], label=side)
        label_bars(axes, places, mib)
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set_yticks(range(len(rows)), [row[name_column] for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel("peak memory, MiB")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def plain_numbers(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def label_bars(axes: Axes, places: list[float], values: list[float]) -> None:
    for place, value in zip(places, values):
        shown = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
        axes.text(value * 1.04, place, shown, va="center", fontsize=6.5)


if __name__ == "__main__":
    pictures(Path(*sys.argv[1:] or ["docs/benchmarks.md"]))
