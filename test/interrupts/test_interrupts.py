"""An interrupt at any instruction leaves everything as it was."""

import random

import pytest

from test.interrupts.injection import count_steps, interrupt_at_steps, interrupt_by_signals
from test.interrupts.jobs import JOBS


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_at_some_instructions(job):
    job.run()  # imports and caches
    steps = range(1, count_steps(job) + 1)
    some = sorted(random.Random(0).sample(steps, min(len(steps), 12)))
    assert interrupt_at_steps(job, some) == {}


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_at_every_instruction(job):
    job.run()
    assert interrupt_at_steps(job, range(1, count_steps(job) + 1)) == {}


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_by_signals(job):
    count, failures = interrupt_by_signals(job, 2, random.Random(0))
    assert count > 0
    assert failures == []
