"""What came of every operator and mode, as text or as a page of the documentation.

python -m test.opinfo.report [--deep] [--device cuda] [--write FILE] [part of a name]
"""

import argparse
import collections
import concurrent.futures
import functools
import multiprocessing
import pathlib

import torch

from test import device
from test.opinfo import known
from test.opinfo.samples import OPERATORS
from test.opinfo.sweep import SEVERITY, sweep, worst

PAGE = """# Operator coverage

PyTorch's own database of operators ({operators} entries), each under every mode, compared with a
loop over samples in plain PyTorch. Arguments are batched together and alone, in front and at the
end. Made by `python -m test.opinfo.report --write docs/operator-coverage.md`; the tests check the
same tables.

Each operator counts once per mode, with the worst that came of its samples:

- **rule**: right, without a loop;
- **loop**: right, sample by sample, with a warning;
- **error**: an error that says why;
- **wrong**: a wrong answer, to be repaired;
- **n/a**: there is nothing to compare with.

{counts}

## Nothing to compare with

{missing}

## Errors

{errors}

## Loops

{loops}

## Wrong

{wrong}
"""


def set_up(on):
    torch.set_num_threads(1)
    device.use(on)


def outcomes_of(names, deep, on, processes):
    start = multiprocessing.get_context("spawn" if on != "cpu" else None)
    with concurrent.futures.ProcessPoolExecutor(processes, start, set_up, (on,)) as pool:
        found = pool.map(functools.partial(sweep, deep=deep), names, chunksize=8)
        return dict(zip(names, found, strict=True))


def table(header, rows):
    """A table that reads well as text, too."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    padded = [[cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in padded)


def modes_of(outcomes):
    return list(next(iter(outcomes.values())))


def counts(outcomes):
    rows = []
    for mode in modes_of(outcomes):
        statuses = collections.Counter(worst(several[mode]).status for several in outcomes.values())
        rows.append([mode, *(statuses[status] for status in SEVERITY)])
    return table(["mode", *SEVERITY], rows)


def missing(outcomes):
    """How many operators have no answer to compare, for which reason."""
    reasons = collections.defaultdict(collections.Counter)
    for several in outcomes.values():
        for mode, found in several.items():
            outcome = worst(found)
            if outcome.status == "n/a":
                reasons[outcome.detail][mode] += 1
    modes = modes_of(outcomes)
    rows = [[reason, *(count[mode] for mode in modes)] for reason, count in reasons.items()]
    return table(["reason", *modes], rows)


def listing(outcomes, status, listed):
    """The operators that end in `status`, the modes, and why."""
    rows = []
    for name, several in outcomes.items():
        reasons = {}
        for mode, found in several.items():
            details = [o.detail for o in found if o.status == status]
            if details:
                reason = listed.get((name, mode))
                text = reason.text if reason else f"NOT LISTED: {details[0]}"
                reasons.setdefault(text, []).append(mode)
        for text, modes in reasons.items():
            rows.append([name, ", ".join(modes), text])
    return table(["operator", "modes", "why"], rows) if rows else "None."


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("part", nargs="?", default="")
    parser.add_argument("--deep", action="store_true", help="many more samples, all variants")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", metavar="FILE", type=pathlib.Path)
    options = parser.parse_args()
    names = [name for name in OPERATORS if options.part in name]
    outcomes = outcomes_of(names, options.deep, options.device, options.processes)
    page = PAGE.format(
        operators=len(outcomes),
        counts=counts(outcomes),
        missing=missing(outcomes),
        errors=listing(outcomes, "error", {**known.ERRORS, **known.DEEP_ERRORS}),
        loops=listing(outcomes, "loop", {**known.LOOPS, **known.DEEP_LOOPS}),
        wrong=listing(outcomes, "WRONG", known.WRONG),
    )
    if options.write:
        options.write.write_text(page)
    else:
        print(page[page.index("| mode") :])


if __name__ == "__main__":
    main()
