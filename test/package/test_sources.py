"""What docs/ and CONTRIBUTING.md say of the sources as a whole.

The folders of csrc/ lie in layers: a file includes headers of its own layer and of lower ones. What
is of a thread is in one struct. Files are short.
"""

import re
from pathlib import Path

import pytest

import functorch_ext

SOURCES = Path(__file__).parents[2] / "csrc"
PACKAGE = Path(functorch_ext.__file__).parent
# From the bottom.
LAYERS = [
    ["releases"],
    ["engine"],
    ["autodiff", "functionalization"],
    ["batching", "derivatives"],
    ["taylor"],
    ["python"],
]
RANKS = {folder: rank for rank, layer in enumerate(LAYERS) for folder in layer}


def test_every_folder_lies_in_a_layer():
    assert {path.parent.name for path in SOURCES.glob("*/*.h")} == set(RANKS)


@pytest.mark.parametrize("folder", sorted(RANKS))
def test_no_include_goes_up(folder):
    upward = []
    for path in sorted((SOURCES / folder).iterdir()):
        included = re.findall(r'^#include "([a-z_]+)/', path.read_text(), re.MULTILINE)
        upward += [(path.name, name) for name in included if RANKS[name] > RANKS[folder]]
    assert not upward


def test_what_is_of_a_thread_is_in_one_struct():
    places = [
        f"{path.parent.name}/{path.name}"
        for path in sorted(SOURCES.glob("*/*.[ch]*"))
        if "thread_local" in path.read_text()
    ]
    # A cache, the last error, ThreadState, and an observer's clock.
    assert places == [
        "autodiff/grad_mode.cpp",
        "engine/failed_operator.cpp",
        "engine/thread_state.cpp",
        "python/observed_costs.h",
    ]


def test_files_are_short():
    files = [*SOURCES.rglob("*.cpp"), *SOURCES.rglob("*.h"), *PACKAGE.rglob("*.py")]
    assert not [path.name for path in files if path.read_text().count("\n") > 400]
