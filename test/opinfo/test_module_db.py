"""PyTorch's modules: over a batch, per-sample gradients of their parameters, ensembles."""

import re

import pytest

from test.opinfo import known_modules
from test.opinfo.modules import MODULES, sweep_module

TABLES = {
    "WRONG": known_modules.WRONG,
    "error": known_modules.ERRORS,
    "loop": known_modules.LOOPS,
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_module(name, training):
    for mode, several in sweep_module(name, training).items():
        assert several, f"{mode}: nothing was run, for no reason"
        label = f"{mode} in training" if training else mode
        for status, listed in TABLES.items():
            details = [outcome.detail for outcome in several if outcome.status == status]
            if (name, label) not in listed:
                assert not details, f"{label} ends in {status}, but is not listed: {details[0]}"
                continue
            assert details, f"{label} is listed with what ends in {status}, but does not"
            if status == "error":
                pattern = listed[name, label].pattern
                assert all(re.search(pattern, text) for text in details), f"{label}: {details}"


def test_what_is_listed_exists():
    listed = {name for table in TABLES.values() for name, _ in table}
    assert listed <= MODULES.keys(), listed - MODULES.keys()
