"""Runs all benchmarks: what ``make bench`` does.

Writes ``build/benchmarks.json``, and fills the tables of ``build/benchmarks.md``, or of the page
that is named, with pictures beside it. ``--parts times bounds`` measures these alone, and leaves
the tables of the others as they are.

python -m benchmarks.suite [--rounds 30] [--write docs/benchmarks.md] [--parts PART ...]
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import jit_table
from benchmarks.page import fill, replace
from benchmarks.part import FOLDER

BUILD = Path("build")
PAGE = Path("docs/benchmarks.md")

# Parts in one row run at the same time: what these count doesn't depend on the machine's load.
STEPS = (
    ("memory", "instructions"),
    ("times",),
    ("bounds",),
    ("scaling",),
    ("jit",),
    ("real",),
    ("real_on_all_threads",),
)


def command(part: str, rounds: int) -> list[str]:
    """What runs one part."""
    python = [sys.executable, "-W", "ignore", "-m"]
    output = ["--output", str(FOLDER / f"{part}.json")]
    if part == "real_on_all_threads":
        return [*python, "benchmarks.real", "--threads", "all", *output]
    if part != "times":
        return [*python, f"benchmarks.{part}", *output]
    everything = ["--peers", "all", "--threads", "both", "--device", "all"]
    return [*python, "benchmarks", *everything, "--rounds", str(rounds), *output]


def run(rounds: int, chosen: list[str]) -> dict[str, Any]:
    """Runs the chosen parts, each in processes of its own.

    Returns:
        The results of each part by its name.

    Raises:
        SystemExit: a part failed, whose messages have been printed.
    """
    results = {}
    for step in STEPS:
        parts = [part for part in step if part in chosen]
        if not parts:
            continue
        start = time.perf_counter()
        processes = {part: subprocess.Popen(command(part, rounds)) for part in parts}
        failed = [part for part, process in processes.items() if process.wait()]
        if failed:
            sys.exit(f"failed: {', '.join(failed)}")
        print(f"\n{' and '.join(parts)}: {time.perf_counter() - start:.0f} s", flush=True)
        for part in parts:
            results[part] = json.loads((FOLDER / f"{part}.json").read_text())
    return results


def draw(page: Path) -> None:
    """Pictures of the page's tables, beside it."""
    try:
        from benchmarks.picture import pictures
    except ImportError as error:
        print(f"No pictures: {error}")
        return
    pictures(page)


def main() -> None:
    """Runs everything and writes the results."""
    parser = argparse.ArgumentParser(description="Runs all benchmarks.")
    parser.add_argument("--rounds", type=int, default=30, help="how often each gets its turn")
    parser.add_argument(
        "--write", type=Path, help="a page whose tables to fill, pictures beside it"
    )
    parser.add_argument(
        "--again", action="store_true", help="measure nothing: take the results of the last run"
    )
    everything = [part for step in STEPS for part in step]
    parser.add_argument("--parts", nargs="+", choices=everything, default=everything)
    arguments = parser.parse_args()
    json_file = BUILD / "benchmarks.json"
    if not arguments.again:
        results = run(arguments.rounds, arguments.parts)
        json_file.write_text(json.dumps(results, indent=2) + "\n")
    results = json.loads(json_file.read_text())
    page = arguments.write
    if page and "jit" in results:
        replace(page.with_name("jit.md"), {"jit": jit_table.tables(results["jit"])})
    if not page:
        page = json_file.with_suffix(".md")
        page.write_text(PAGE.read_text())
    fill(page, results)
    draw(page)


if __name__ == "__main__":
    main()
