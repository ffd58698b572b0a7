"""Spoiled calls of PyTorch's operators: what a loop over samples refuses, transforms refuse, too.

A worker process that crashes is a fault by itself. More: python -m test.bad_inputs --count 50000.
"""

import os

import pytest

from test.bad_inputs import known
from test.bad_inputs.judge import FAULTS, REFUSED, VALID
from test.bad_inputs.run import spread, sweep
from test.opinfo.samples import OPERATORS


def check(cases, jobs):
    found = sweep(cases, jobs)
    faults = [v for v in found if v.outcome in FAULTS and not known.reason(v)]
    assert not faults, "\n".join(
        f"{v.outcome}: python -m test.bad_inputs --case {v.case}: {v.transform}, {v.done}, "
        f"plain: {v.plain[:200]}, ours: {v.ours[:200]}"
        for v in faults
    )
    outcomes = {v.outcome for v in found}
    assert {VALID, REFUSED} <= outcomes, f"the cases are of one kind only: {outcomes}"


def test_a_few():
    check(spread(500, first=1_000_000), 1)


@pytest.mark.slow
@pytest.mark.deep
def test_many():
    check(spread(5_000), os.cpu_count())


def test_what_is_known_exists():
    assert {name for name, _ in known.REASONS} <= OPERATORS.keys()
