"""Pages of the documentation that are made by the program say what it does now."""

import importlib.util
from pathlib import Path

import pytest

from test.releases import only

DOCS = Path(__file__).parents[2] / "docs"


PAGES = [
    "list_operators",
    "list_patches",
    pytest.param("list_distributions", marks=pytest.mark.slow),
]


@only((2, 13), "the pages list what that release has")
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text() == script.page()
