"""Pages of the documentation that are made by the program say what it does now."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_of_operators_is_current():
    spec = importlib.util.spec_from_file_location("list_operators", DOCS / "list_operators.py")
    list_operators = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(list_operators)
    assert list_operators.PAGE.read_text() == list_operators.page()
