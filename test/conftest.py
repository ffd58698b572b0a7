"""What every test shares: one thread, a fixed seed, a check that no transform left state behind."""

import os
import tempfile

import pytest
import torch

from test import device
from test.state import assert_clean_state, live_levels

torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption(
        "--onednn",
        choices=("on", "off"),
        default="on",
        help="off: PyTorch's own kernels in place of oneDNN's, as on processors that it can't use",
    )
    parser.addoption(
        "--device", default="cpu", help="cuda: tests make their tensors there (test/device.py)"
    )


def pytest_configure(config):
    # Inductor takes code from its cache that it made for the processor's other instructions.
    if capability := os.environ.get("ATEN_CPU_CAPABILITY"):
        cache = os.path.join(tempfile.gettempdir(), f"torchinductor_{capability}")
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", cache)
    device.use(config.getoption("--device"))
    if config.getoption("--onednn") == "off":
        torch.backends.mkldnn.set_flags(False)


@pytest.fixture(autouse=True)
def seed_and_clean_state(request):
    torch.manual_seed(0)
    levels_before, failed_before = live_levels(), request.session.testsfailed
    yield
    if request.session.testsfailed == failed_before:  # the traceback of a failure keeps tensors
        assert_clean_state(levels_before)
