"""The compiled module is for one release of torch; another one is refused before it is loaded."""

from pathlib import Path

import pytest
import torch
from expecttest import assert_expected_inline

import functorch_ext
from functorch_ext._build_info import PYTHON_VERSION, TORCH_VERSION
from functorch_ext._version_check import check_versions


def test_the_running_torch_is_accepted():
    check_versions(torch.__version__, PYTHON_VERSION)
    check_versions(TORCH_VERSION, PYTHON_VERSION)


@pytest.mark.parametrize("accelerator", ["", "+cpu", "+cu130", "+rocm6.4", "+xpu"])
def test_accelerators_of_one_release_are_alike(monkeypatch, accelerator):
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    check_versions("2.13.0" + accelerator, PYTHON_VERSION)


@pytest.mark.parametrize("built_for", ["2.12.1+cpu", "2.13.1", "2.13.0a0+git1234567", "3.0.0"])
def test_other_releases_are_refused(monkeypatch, built_for):
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    with pytest.raises(ImportError, match="make build"):
        check_versions(built_for, PYTHON_VERSION)


def test_another_python_is_refused():
    with pytest.raises(
        ImportError, match=r"was built for Python 3\.9, but Python 3\.\d+ is running"
    ):
        check_versions(torch.__version__, "3.9")


def test_message(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.14.0+cu130")
    with pytest.raises(ImportError) as caught:
        check_versions("2.13.0+cpu", PYTHON_VERSION)
    assert_expected_inline(
        str(caught.value),
        """functorch_ext was built for torch 2.13.0+cpu, but torch 2.14.0+cu130 is running. Build it again for this torch: run `make build` in its source folder, or `pip install --no-build-isolation .` there.""",
    )


def test_the_version_is_one_of_the_changelog():
    changelog = Path(__file__).parents[2] / "CHANGELOG.md"
    assert f"\n## {functorch_ext.__version__}\n" in changelog.read_text()
