"""Pages of the documentation that are made by the program say what it does now."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import functorch_ext
from test.releases import only

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LIBRARIES = ("transformers", "tensordict", "gpytorch", "torchdiffeq", "torch_geometric", "e3nn")

# What a script's page holds, and what the page should hold.
PRINT = "import {name} as script; print(script.PAGE.read_text() + chr(0) + script.page(), end='')"

PAGES = [
    "list_operators",
    "list_patches",
    pytest.param("list_control_flow", marks=pytest.mark.slow),
    pytest.param("list_distributions", marks=pytest.mark.slow),
    pytest.param(
        "list_libraries",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(
                not all(map(importlib.util.find_spec, LIBRARIES)),
                reason="needs requirements-libraries.txt",
            ),
        ],
    ),
]


@only((2, 13), "the pages list what that release has")
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name):
    """In a process of its own: what other tests import changes answers of torch.func's."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRINT.format(name=name)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{DOCS}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    page, expected = done.stdout.split(chr(0))
    assert page == expected


def test_the_diagrams_are_current():
    spec = importlib.util.spec_from_file_location("diagrams", DOCS / "diagrams.py")
    diagrams = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(diagrams)
    for name, draw in diagrams.DIAGRAMS.items():
        assert (DOCS / f"{name}.svg").read_text() == draw(), "run python docs/diagrams.py"


def test_all_functions_are_at_a_glance():
    tour = (DOCS / "guides" / "tour.md").read_text()
    names = [*functorch_ext.__all__, "functorch_ext.debug"]
    assert not [name for name in names if not re.search(rf"\b{re.escape(name)}\b", tour)]
