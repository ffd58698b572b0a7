"""Counts what compiles: ``python -m test.compile.count`` runs the corpus and writes the table.

Runs take minutes, so each outcome is kept in a file as it comes, and a run goes on where the last
one stopped. ``--fresh`` starts anew.
"""

import argparse
import json
import logging
import warnings
from collections import Counter
from pathlib import Path

import torch
import torch.func

import functorch_ext
from test.compile.corpus import THEMES, Program, all_programs, judge

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs" / "compile.md"
_START, _END = "<!-- counts: written by python -m test.compile.count -->", "<!-- end -->"

# The columns: what runs, and how.
_COLUMNS = {
    "ours": (functorch_ext, {"backend": "aot_eager"}),
    "ours, one graph": (functorch_ext, {"backend": "aot_eager", "fullgraph": True}),
    "torch.func": (torch.func, {"backend": "aot_eager"}),
}


def _outcome(program: Program, column: str) -> str:
    transforms, options = _COLUMNS[column]
    try:
        return judge(program, transforms, **options)
    except Exception as error:  # not compiled either
        return f"not there: {type(error).__name__}: {str(error)[:200]}"


def _kind(outcome: str) -> str:
    if outcome in ("right", "wrong"):
        return outcome
    return "not there" if outcome.startswith("not there") else "error"


def table(outcomes: dict[str, dict[str, str]]) -> str:
    """Programs right / error / wrong, by theme and column; a dash where not all have run."""
    lines = ["| Programs | " + " | ".join(_COLUMNS) + " |", "| --- |" + " ---: |" * len(_COLUMNS)]
    for theme in (*THEMES, ""):
        programs = [p for p in all_programs() if theme in ("", p.theme)]
        cells = []
        for column in _COLUMNS:
            if any(p.name not in outcomes[column] for p in programs):
                cells.append("–")
                continue
            kinds = Counter(_kind(outcomes[column][p.name]) for p in programs)
            cells.append(" / ".join(str(kinds[kind]) for kind in ("right", "error", "wrong")))
        lines.append(f"| {theme or 'all'} ({len(programs)}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outcomes", type=Path, default=_ROOT / "build" / "compile-outcomes.jsonl")
    parser.add_argument("--column", choices=_COLUMNS, action="append")
    parser.add_argument("--fresh", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    if arguments.fresh:
        arguments.outcomes.unlink(missing_ok=True)
    outcomes: dict[str, dict[str, str]] = {column: {} for column in _COLUMNS}
    if arguments.outcomes.exists():
        for line in arguments.outcomes.read_text().splitlines():
            column, name, outcome = json.loads(line)
            outcomes[column][name] = outcome
    with arguments.outcomes.open("a") as file:
        for column in arguments.column or _COLUMNS:
            for program in all_programs():
                if program.name not in outcomes[column]:
                    outcome = outcomes[column][program.name] = _outcome(program, column)
                    file.write(json.dumps([column, program.name, outcome]) + "\n")
                    file.flush()
    before, rest = _PAGE.read_text().split(_START)
    after = rest.split(_END)[1]
    _PAGE.write_text(f"{before}{_START}\n{table(outcomes)}\n{_END}{after}")


if __name__ == "__main__":
    main()
