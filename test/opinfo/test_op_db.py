"""No operator of PyTorch's database gives a wrong answer, and those that give none, or are slow,
are listed."""

import re

import pytest

from test.opinfo import known
from test.opinfo.samples import OPERATORS, default_dtype, is_equal, problems
from test.opinfo.sweep import SAMPLES, sweep


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


def test_samples_differ():
    """A batch of equal samples would hide what mixes them up."""
    equal = []
    for name, op in OPERATORS.items():
        draws = [p.draws for p in problems(op, default_dtype(op), SAMPLES)[0]]
        if draws and all(is_equal(first, second) for first, second, *_ in draws):
            equal.append(name)
    assert sorted(equal) == sorted(known.SAMPLES_AGREE)


def test_what_is_listed_exists():
    listed = {
        *known.SKIPPED,
        *known.TOLERANCE_TWICE,
        *known.NOT_TWICE,
        *known.BY_VJPS,
        *known.READS_STRIDES,
        *known.RANDOM,
    }
    listed |= {*known.UNINITIALISED, *known.DRAWS_BY_VALUE}
    tables = (known.ERRORS, known.LOOPS, known.WRONG, known.DEEP_ERRORS, known.DEEP_LOOPS)
    listed |= {name for table in tables for name, _ in table}
    missing = listed - OPERATORS.keys() - known.of_other_releases()
    assert not missing, missing
