"""Random programs: none may come out wrong, crash, or leave state behind."""

import pytest

from test.fuzz.judge import BAD
from test.fuzz.worker import verdicts


def failures(count, seed):
    found = verdicts(seed, count)
    return [f"seed {each}: {v.kind}: {v.message}" for each, v in found if v.kind in BAD]


def test_programs():
    assert not failures(200, seed=0)


@pytest.mark.slow
@pytest.mark.deep
def test_more_programs():
    assert not failures(3000, seed=1_000_000)
