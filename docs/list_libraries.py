"""Writes the table of docs/libraries.md: what users of libraries do, with each package::

    PYTHONPATH=. python docs/list_libraries.py

Each package answers in a process of its own: torch.func in one that never imports ours. The answers
are compared with loops of plain autograd.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import torch

from test.libraries import science_programs  # noqa: F401  (lists its programs)
from test.libraries.programs import PROGRAMS, TOLERANCE

PAGE = Path(__file__).parent / "libraries.md"
START, END = "<!-- table: written by docs/list_libraries.py -->\n", "<!-- end -->"


def outcome(package, program):
    """*right*, *wrong*, *zero* or *raises*."""
    expected = program.plain()
    torch.manual_seed(0)
    try:
        found = program.run(package)
    except Exception:
        return "raises"
    try:
        torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)
    except AssertionError:
        is_zero = isinstance(found, torch.Tensor) and not found.any()
        return "zero" if is_zero else "wrong"
    return "right"


def answers(package):
    """The outcome of each program."""
    return [outcome(package, program) for program in PROGRAMS.values()]


def answers_of(name):
    """The answers of the package with a name, from a process that imports no other."""
    command = [sys.executable, "-W", "ignore", __file__, name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def page():
    """The page, with ours and torch.func's answers in its table."""
    rows = ["| Library | Use | functorch_ext | torch.func |\n", "| --- | --- | --- | --- |\n"]
    before = None
    every = zip(PROGRAMS, answers_of("functorch_ext"), answers_of("torch.func"), strict=True)
    for (library, use), ours, theirs in every:
        rows.append(f"| {'' if library == before else library} | {use} | {ours} | {theirs} |\n")
        before = library
    head, rest = PAGE.read_text().split(START)
    return head + START + "".join(rows) + END + rest.split(END)[1]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(answers(importlib.import_module(sys.argv[1]))))
    else:
        PAGE.write_text(page())
