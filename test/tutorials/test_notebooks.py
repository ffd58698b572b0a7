"""Notebooks run, and print what is stored in them.

In what a notebook prints, the words must be the stored ones. Numbers depend on the processor, so
they are compared in cells with the tag `checked` alone, to within 5 %. What a notebook shows to be
right it asserts itself, and says in a line that begins with a check mark.
"""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
execute = pytest.importorskip("tutorials.execute").execute

FOLDER = Path(__file__).parents[2] / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?")
MARK = "✓"
KIBIBYTES = 64

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    """What a reader sees as text: stdout, and values that aren't pictures."""
    texts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts += [output.text] if output.name == "stdout" else []
        elif not any(kind.startswith("image/") for kind in output.data):
            texts += [output.data.get("text/plain", "")]
    return "".join(texts)


def words(text):
    return NUMBER.sub("#", text).split()


def numbers(text):
    return [float(number) for number in NUMBER.findall(text)]


def assert_same_outputs(found, stored):
    for new, old in zip(code_cells(found), code_cells(stored), strict=True):
        assert words(printed(new)) == words(printed(old)), new.source
        if "checked" in new.metadata.get("tags", ()):
            expected = pytest.approx(numbers(printed(old)), rel=0.05, abs=1e-9)
            assert numbers(printed(new)) == expected, new.source


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_and_prints_what_it_shows(path):
    assert_same_outputs(execute(path), nbformat.read(path, as_version=4))


@each_notebook
def test_a_notebook_is_stored_with_its_outputs(path):
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert [
        output for output in outputs if {"image/png", "image/svg+xml"} & {*output.get("data", ())}
    ]
    assert any(line.startswith(MARK) for cell in cells for line in printed(cell).splitlines())
    assert path.stat().st_size < KIBIBYTES * 1024


@each_notebook
def test_the_table_has_the_notebook(path):
    assert f"]({path.name})" in (FOLDER / "README.md").read_text()


def prose(path):
    """Without code."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.sub("`[^`]*`", "", text)


@pytest.mark.parametrize("path", [FOLDER / "README.md", *NOTEBOOKS], ids=lambda path: path.stem)
def test_no_link_is_dead(path):
    links = re.findall(r"\]\(([^)#:]+)\)", prose(path))
    assert not [link for link in links if not (FOLDER / link).exists()]


def of_one_cell(text, *tags):
    cell = nbformat.v4.new_code_cell(metadata={"tags": list(tags)})
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    return nbformat.v4.new_notebook(cells=[cell])


@pytest.mark.parametrize(
    ("found", "stored", "tags", "same"),
    [
        ("✓ error 1e-16", "✓ error 3.2e-15", [], True),
        ("✗ error 1e-16", "✓ error 1e-16", [], False),
        ("loss nan", "loss 1.5", [], False),
        ("loss 1.52", "loss 1.5", ["checked"], True),
        ("loss 1.7", "loss 1.5", ["checked"], False),
        ("", "loss 1.5", [], False),
    ],
)
def test_outputs_are_compared(found, stored, tags, same):
    found, stored = of_one_cell(found, *tags), of_one_cell(stored, *tags)
    if same:
        assert_same_outputs(found, stored)
    else:
        with pytest.raises(AssertionError):
            assert_same_outputs(found, stored)
