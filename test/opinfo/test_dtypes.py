"""The operators in every dtype, and with conjugated and negated arguments."""

import re

import pytest

from test.opinfo import known, known_dtypes
from test.opinfo.dtypes import sweep_dtypes
from test.opinfo.samples import OPERATORS

# table of any dtype, table of one dtype
TABLES = {
    "WRONG": (known.WRONG, known_dtypes.WRONG),
    "error": (known.ERRORS, known_dtypes.ERRORS),
    "loop": (known.LOOPS, known_dtypes.LOOPS),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name):
    """What is listed for one dtype must come; what is listed for any may not come in this one."""
    for label, several in sweep_dtypes(name).items():
        mode = label.split()[1]
        for status, (of_any, of_one) in TABLES.items():
            details = [outcome.detail for outcome in several if outcome.status == status]
            if (name, label) in of_one:
                assert details, f"{label} is listed with what ends in {status}, but does not"
                pattern = of_one[name, label].pattern
                assert all(re.search(pattern, text) for text in details), f"{label}: {details}"
            elif (name, mode) not in of_any:
                assert not details, f"{label} ends in {status}, but is not listed: {details[0]}"


def test_what_is_listed_exists():
    tables = (known_dtypes.TOLERANCE, known_dtypes.ERRORS, known_dtypes.LOOPS, known_dtypes.WRONG)
    listed = {name for table in tables for name, _ in table}
    assert listed <= OPERATORS.keys(), listed - OPERATORS.keys()
