"""The code of README and of the site's pages runs, and prints what stands below it.

The Python blocks of a page are one program. A `text` block right after one holds what that one
prints, or the error that it raises; `...` stands for anything. A block after a comment
`<!-- not run: why -->` is left out.
"""

import contextlib
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
NOT_RUN = re.compile(r"<!-- not run: .* -->\s*\Z")
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    line: int
    code: str
    expected: str | None = None


def blocks_of(path):
    text = path.read_text()
    blocks, end_of_last = [], None
    for fence in FENCE.finditer(text):
        language, body = fence.groups()
        between = text[end_of_last : fence.start()] if end_of_last is not None else "other"
        end_of_last = None
        if language == "text" and not between.strip():
            blocks[-1].expected = body
        elif language == "python" and not NOT_RUN.search(text, 0, fence.start()):
            blocks.append(Block(text.count("\n", 0, fence.start()) + 1, body))
            end_of_last = fence.end()
    return blocks


# Its outputs are times and memory: test/inspecting/test_page.py runs it.
TESTED_ELSEWHERE = ROOT / "docs" / "looking-inside.md"


def pages():
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found.remove(TESTED_ELSEWHERE)
    found += sorted((ROOT / "docs" / "guides").glob("*.md"))
    return [path for path in found if blocks_of(path)]


def printed(block, path, names):
    """What the block prints, or its error as Python would show it."""
    # With the page's line numbers.
    code = compile("\n" * block.line + block.code, str(path), "exec")
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(code, names)
    except Exception as error:
        if block.expected is None:
            raise
        return f"{type(error).__name__}: {error}"
    return out.getvalue()


def matches(expected, given):
    """But for line breaks, so that a page may wrap a long message."""
    parts = [re.escape(" ".join(part.split())) for part in expected.split("...")]
    return re.fullmatch(r"\s*.*\s*".join(parts), " ".join(given.split()))


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(path):
    torch.manual_seed(0)
    names = {"__name__": "__main__"}
    with warnings.catch_warnings():
        for block in blocks_of(path):
            given = printed(block, path, names)
            place = f"{path.relative_to(ROOT)}:{block.line}"
            if block.expected is not None:
                assert matches(block.expected, given), f"{place} gives\n{given}"
