"""Counts what compiles: ``python -m test.compile.count`` runs the corpus and writes the table.

Each program runs in a worker process, which a crash or a limit of time ends. Each outcome is kept
in a file as it comes, and a run goes on where the last one stopped. ``--fresh`` starts anew,
``--column`` runs one column alone, ``--minutes`` bounds the time of a column: programs come in an
order drawn with a seed, so what has run is a sample.
"""

import argparse
import json
import logging
import multiprocessing
import random
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.func

import functorch_ext
from test.compile.corpus import THEMES, all_programs, judge

_ROOT = Path(__file__).parents[2]
PAGE = _ROOT / "docs" / "compile.md"
_START, _END = "<!-- counts: written by python -m test.compile.count -->", "<!-- end -->"
_LIMIT = 900  # seconds for a program

# The columns: what runs, and how.
COLUMNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "eager": (functorch_ext, {"backend": "eager"}),
    "eager, one graph": (functorch_ext, {"backend": "eager", "fullgraph": True}),
    "aot_eager": (functorch_ext, {"backend": "aot_eager"}),
    "aot_eager, one graph": (functorch_ext, {"backend": "aot_eager", "fullgraph": True}),
    "aot_eager, dynamic": (functorch_ext, {"backend": "aot_eager", "dynamic": True}),
    "Inductor": (functorch_ext, {"options": {"fallback_random": True}}),
    "torch.func, aot_eager": (torch.func, {"backend": "aot_eager"}),
    "torch.func, Inductor": (torch.func, {"options": {"fallback_random": True}}),
}


def _work(requests: Connection) -> None:
    """The worker process: is told a column and the name of a program, tells the outcome."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    programs = {program.name: program for program in all_programs()}
    while True:
        column, name = requests.recv()
        transforms, options = COLUMNS[column]
        try:
            outcome = judge(programs[name], transforms, **options)
        except Exception as error:  # not compiled either
            outcome = f"not there: {type(error).__name__}: {str(error)[:200]}"
        requests.send(outcome)


class _Worker:
    def __init__(self) -> None:
        self.requests, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(theirs,), daemon=True
        )
        self.process.start()
        theirs.close()

    def outcome(self, column: str, name: str) -> str | None:
        """None if the process has to be replaced."""
        self.requests.send((column, name))
        try:
            return self.requests.recv() if self.requests.poll(_LIMIT) else None
        except EOFError:
            return None

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def run(columns: list[str], minutes: float, outcomes: dict[str, dict[str, str]], file: Any) -> None:
    """Adds the outcomes that are missing."""
    worker = _Worker()
    for column in columns:
        end = time.monotonic() + 60 * minutes
        names = [program.name for program in all_programs()]
        random.Random(0).shuffle(names)
        for name in names:
            if name in outcomes[column] or time.monotonic() > end:
                continue
            outcome = worker.outcome(column, name)
            if outcome is None:
                worker.end()
                worker, outcome = _Worker(), f"crashed, or took more than {_LIMIT} s"
            outcomes[column][name] = outcome
            file.write(json.dumps([column, name, outcome]) + "\n")
            file.flush()
    worker.end()


def _cell(programs: list[str], outcomes: dict[str, str]) -> str:
    """Right / error / wrong; of how many, where not all have run."""
    found = [outcomes[name] for name in programs if name in outcomes]
    found = [outcome for outcome in found if not outcome.startswith("not there")]
    kinds = Counter(outcome if outcome in ("right", "wrong") else "error" for outcome in found)
    counts = " / ".join(str(kinds[kind]) for kind in ("right", "error", "wrong"))
    run = sum(name in outcomes for name in programs)
    return counts if run == len(programs) else f"{counts} (of {run} run)" if run else "–"


def table(outcomes: dict[str, dict[str, str]]) -> str:
    """A row for each theme, and one for all."""
    lines = ["| Programs | " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    for theme in (*THEMES, "all"):
        programs = [p.name for p in all_programs() if theme in ("all", p.theme)]
        cells = [_cell(programs, outcomes[column]) for column in COLUMNS]
        lines.append(f"| {theme} ({len(programs)}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outcomes", type=Path, default=_ROOT / "build" / "compile-outcomes.jsonl")
    parser.add_argument("--column", choices=COLUMNS, action="append")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--fresh", action="store_true")
    arguments = parser.parse_args()
    if arguments.fresh:
        arguments.outcomes.unlink(missing_ok=True)
    outcomes: dict[str, dict[str, str]] = {column: {} for column in COLUMNS}
    if arguments.outcomes.exists():
        for line in arguments.outcomes.read_text().splitlines():
            column, name, outcome = json.loads(line)
            outcomes[column][name] = outcome
    with arguments.outcomes.open("a") as file:
        run(arguments.column or list(COLUMNS), arguments.minutes, outcomes, file)
    for column, by_name in outcomes.items():
        for name, outcome in sorted(by_name.items()):
            if outcome != "right" and not outcome.startswith("not there"):
                print(f"{column}: {name}: {outcome}")
    before, rest = PAGE.read_text().split(_START)
    after = rest.split(_END)[1]
    PAGE.write_text(f"{before}{_START}\n{table(outcomes)}\n{_END}{after}")


if __name__ == "__main__":
    main()
