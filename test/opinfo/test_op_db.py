"""No operator of PyTorch's database gives a wrong answer, and those that give none are listed."""

import pytest

from test.opinfo import known
from test.opinfo.sweep import OPERATORS, sweep


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name):
    for mode, (status, detail) in sweep(name).items():
        assert status != "WRONG", f"{mode}: {detail}"
        assert status != "error" or name in known.ERRORS, f"{mode}: {detail}"


def test_what_is_listed_exists():
    listed = {*known.SKIPPED, *known.ERRORS, *known.TOLERANCE}
    assert listed <= OPERATORS.keys(), listed - OPERATORS.keys()
