"""Writes the table of docs/libraries.md: what users of libraries do, with each package::

    PYTHONPATH=. python docs/list_libraries.py

Each package answers in a process of its own: torch.func in one that never imports ours. The answers
are compared with loops of plain autograd.
"""

from pathlib import Path

import torch
from two_packages import answers_of, filled, main

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


def page():
    """The page, with ours and torch.func's answers in its table."""
    rows = ["| Library | Use | functorch_ext | torch.func |\n", "| --- | --- | --- | --- |\n"]
    before = None
    every = zip(
        PROGRAMS,
        answers_of(__file__, "functorch_ext"),
        answers_of(__file__, "torch.func"),
        strict=True,
    )
    for (library, use), ours, theirs in every:
        rows.append(f"| {'' if library == before else library} | {use} | {ours} | {theirs} |\n")
        before = library
    return filled(PAGE, START, rows, END)


if __name__ == "__main__":
    main(PAGE, answers, page)
