"""What every test shares: one thread, a fixed seed, a check that no transform left state behind."""

import pytest
import torch

from test.state import assert_clean_state

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed_and_clean_state():
    torch.manual_seed(0)
    yield
    assert_clean_state()
