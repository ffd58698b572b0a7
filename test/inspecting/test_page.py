"""The code of docs/looking-inside.md runs, and prints what the page says where that is certain."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "looking-inside.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page(capsys, tmp_path):
    blocks = BLOCK.findall(PAGE.read_text())
    program = tmp_path / "model.py"
    printed = []
    names = {"__name__": "model"}
    text = ""
    for index, (language, code) in enumerate(blocks):
        if language != "python":
            continue
        start = text.count("\n")
        text += code
        program.write_text(text)  # so that lines have their code
        exec(compile("\n" * start + code, str(program), "exec"), names)
        output = capsys.readouterr().out
        if index + 1 < len(blocks) and blocks[index + 1][0] == "text":
            printed.append((blocks[index + 1][1], output))
    assert len(printed) == 4
    table, *certain = printed
    assert "rule (pointwise)" in table[1] and "> grad, backward" in table[1]
    counted = [text.partition(" operator calls")[0] for text in table]
    assert counted[0] == counted[1]
    for expected, output in certain:
        assert output == expected


@pytest.mark.parametrize("word", ["explain", "debug.nans", "debug.show", "debug.leaks"])
def test_each_tool_is_named(word):
    assert word in PAGE.read_text()
