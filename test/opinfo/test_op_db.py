"""No operator of PyTorch's database gives a wrong answer, and those that give none, or are slow,
are listed."""

import re

import pytest

from test.opinfo import known
from test.opinfo.samples import OPERATORS
from test.opinfo.sweep import sweep


def check(name, outcomes, errors, loops):
    """Each table lists all that it is about, and nothing else."""
    for mode, several in outcomes.items():
        for kind, listed in (("WRONG", known.WRONG), ("error", errors), ("loop", loops)):
            details = [outcome.detail for outcome in several if outcome.status == kind]
            if (name, mode) not in listed:
                assert not details, f"{mode} ends in {kind}, but is not listed: {details[0]}"
                continue
            assert details, f"{mode} is listed with what ends in {kind}, but does not"
            for detail in details if kind == "error" else ():
                pattern = listed[name, mode].pattern
                assert re.search(pattern, detail), f"{mode}: {pattern!r} is not in: {detail}"


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name):
    check(name, sweep(name), known.ERRORS, known.LOOPS)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_more_samples_stacked_in_more_ways(name):
    errors = {**known.ERRORS, **known.DEEP_ERRORS}
    check(name, sweep(name, deep=True), errors, {**known.LOOPS, **known.DEEP_LOOPS})


def test_what_is_listed_exists():
    listed = {*known.SKIPPED, *known.TOLERANCE, *known.READS_STRIDES, *known.RANDOM}
    listed |= {*known.UNINITIALISED, *known.DRAWS_BY_VALUE}
    tables = (known.ERRORS, known.LOOPS, known.WRONG, known.DEEP_ERRORS, known.DEEP_LOOPS)
    listed |= {name for table in tables for name, _ in table}
    assert listed <= OPERATORS.keys(), listed - OPERATORS.keys()
