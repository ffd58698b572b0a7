"""What works inside a transform: functorch_ext is right in every row, or raises as listed."""

import re

import pytest

import functorch_ext
from test.composing.all_rows import ROWS
from test.composing.expected_errors import KNOWN, expected_error
from test.composing.outcome import LOOPS, RIGHT, outcome


def parameter(row):
    return pytest.param(row, id=row.id, marks=[pytest.mark.slow] if row.slow else [])


@pytest.mark.parametrize("row", [parameter(row) for row in ROWS])
def test_row(row):
    what, details = outcome(row, functorch_ext)
    words = expected_error(row)
    if words is None:
        assert what in (RIGHT, LOOPS), f"{what}: {details}"
    else:
        assert what not in (RIGHT, LOOPS), f"{what}: take it off the list of expected errors"
        assert re.search(words, f"{what}: {details}"), details


def test_ids_are_unique():
    ids = [row.id for row in ROWS]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("pattern", KNOWN)
def test_every_expected_error_is_of_some_row(pattern):
    assert any(re.fullmatch(pattern, row.id) for row in ROWS)
