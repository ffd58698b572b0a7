"""Runs every row with functorch_ext and with torch.func, and prints what works, side by side.

    python -m test.composing.compare [--write docs/what-works.md]

Each side runs in processes of its own, so that neither sees what the other one patches. One that
dies is started again behind the row that it died of.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import torch

from test.composing.all_rows import ROWS
from test.composing.outcome import LOOPS, RIGHT, SIDES, WRONG, outcome, transforms

LONGEST_MESSAGE = 110
INTRODUCTION = """\
# What works inside a transform

The same code, run with functorch_ext and with torch.func ({version}). What is right is what Python
loops and plain autograd give. Written by `python -m test.composing.compare --write FILE`; the tests
in `test/composing` hold functorch_ext to it.

- **right**: the same dtypes, shapes and numbers as the loops, in every use that was tried.
- *in a loop*: right, but an operator ran sample by sample.
- **WRONG**: other numbers or another dtype, without an error.
- Otherwise: the first line of the error.
"""


def run_side(side, first):
    """In a process of its own: one line of JSON per row."""
    torch.set_num_threads(1)
    F = transforms(side)
    for row in ROWS[first:]:
        try:
            found = outcome(row, F)
        except Exception as error:  # the reference failed: the row is at fault
            raise RuntimeError(f"the reference fails in {row.id}") from error
        print(json.dumps(found), flush=True)


def outcomes(side):
    """What came of each row, started again after a crash."""
    found = []
    while len(found) < len(ROWS):
        command = [sys.executable, "-W", "ignore", "-m", __spec__.name, "--side", side]
        command += ["--first", str(len(found))]
        run = subprocess.run(command, capture_output=True, text=True)
        found += [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
        if "the reference fails" in run.stderr:
            raise RuntimeError(run.stderr)
        if len(found) < len(ROWS):
            found.append(["crashes", f"the process dies (exit status {run.returncode})"])
    return found


def is_right(found):
    return found[0] in (RIGHT, LOOPS)


def cell(uses):
    """What one side did in all uses of a line: a list of (way, (outcome, details))."""
    groups = defaultdict(list)
    for way, (what, details) in uses:
        if what == RIGHT:
            groups["right"].append(way)
        elif what == LOOPS:
            groups["*in a loop*"].append(way)
        elif what == WRONG:
            groups["**WRONG**"].append(way)
        else:
            groups[shortened(details)].append(way)
    if list(groups) == ["right"]:
        return "right"
    ordered = sorted(groups.items(), key=lambda item: item[0] != "right")
    return "<br>".join(
        f"{what}: {', '.join(ways)}" if any(ways) else what for what, ways in ordered
    )


def shortened(message):
    message = message.replace("|", "\\|").replace("<", "&lt;")
    if len(message) > LONGEST_MESSAGE:
        message = message[:LONGEST_MESSAGE].rsplit(" ", 1)[0] + " ..."
    return f"`{message}`"


def count(found, rows):
    return sum(is_right(found[row]) for row in rows)


def report(by_side):
    """The page: counts, then a table per feature."""
    features = defaultdict(lambda: defaultdict(list))
    for i, row in enumerate(ROWS):
        features[row.feature][row.name].append(i)
    lines = [INTRODUCTION.format(version=torch.__version__.split("+")[0])]
    lines += [
        "| Feature | uses | functorch_ext right | torch.func right |",
        "| --- |" + " ---: |" * 3,
    ]
    for feature, names in [*features.items(), ("All", {"": range(len(ROWS))})]:
        rows = [i for each in names.values() for i in each]
        counts = [str(count(by_side[side], rows)) for side in SIDES]
        lines.append(f"| {feature} | {len(rows)} | " + " | ".join(counts) + " |")
    for feature, names in features.items():
        lines += ["", f"## {feature}", "", "| What | functorch_ext | torch.func |"]
        lines += ["| --- | --- | --- |"]
        for name, rows in names.items():
            cells = [cell([(ROWS[i].way, by_side[side][i]) for i in rows]) for side in SIDES]
            lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def memory_section():
    """The section on memory."""
    # Imports functorch_ext, which processes that run rows with torch.func must not do.
    from benchmarks import memory
    from benchmarks.report import table

    rows = [
        [workload, *(f"{bytes_[side] / memory.MIB:.1f}" for side in memory.SIDES)]
        for workload, bytes_ in memory.measure(memory.GRADIENTS).items()
    ]
    figures = table(["Workload", "torch.autograd.grad", *SIDES], rows)
    return f"## Peak memory of grad, in MiB\n\n{figures}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="write the page to this file")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments.side, arguments.first)
        return
    page = report({side: outcomes(side) for side in SIDES}) + "\n" + memory_section()
    if arguments.write:
        arguments.write.write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
