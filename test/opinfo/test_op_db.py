"""No operator of PyTorch's database gives a wrong answer, and those that give none, or are slow,
are listed."""

import pytest

from test.opinfo import known
from test.opinfo.sweep import OPERATORS, sweep


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name):
    for mode, (status, detail) in sweep(name).items():
        assert status != "WRONG", f"{mode}: {detail}"
        for kind, listed in (("error", known.ERRORS), ("loop", known.LOOPS)):
            if (name, mode) in listed:
                assert status == kind, (
                    f"{mode} is listed with what ends in {kind}, but is: {status}"
                )
            else:
                assert status != kind, f"{mode} ends in {kind}, but is not listed: {detail}"


def test_what_is_listed_exists():
    listed = {*known.SKIPPED, *known.TOLERANCE, *known.READS_STRIDES}
    listed |= {name for name, _ in (*known.ERRORS, *known.LOOPS)}
    assert listed <= OPERATORS.keys(), listed - OPERATORS.keys()
