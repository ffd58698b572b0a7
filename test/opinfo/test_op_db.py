"""No operator of PyTorch's database gives a wrong answer, and those that give none are listed."""

import pytest

from test.opinfo import known
from test.opinfo.sweep import OPERATORS, sweep


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name):
    for mode, (status, detail) in sweep(name).items():
        listed = (name, mode) in known.ERRORS
        assert status != "WRONG", f"{mode}: {detail}"
        assert status != "error" or listed, f"{mode}: {detail}"
        assert status == "error" or not listed, f"{mode} is listed as an error, but is: {status}"


def test_what_is_listed_exists():
    listed = {*known.SKIPPED, *known.TOLERANCE, *known.READS_STRIDES}
    listed |= {name for name, _ in known.ERRORS}
    assert listed <= OPERATORS.keys(), listed - OPERATORS.keys()
