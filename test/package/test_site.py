"""The site's reference has every public name once."""

import re
from pathlib import Path

import functorch_ext

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_lists_every_public_name():
    listed = re.findall(r"^   ([a-zA-Z_]+)$", (DOCS / "api/index.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(functorch_ext.__all__)


def test_every_page_is_in_a_table_of_contents():
    home = (DOCS / "index.md").read_text()
    entries = {
        line
        for toctree in re.findall(r"```{toctree}\n(.*?)```", home, re.DOTALL)
        for line in toctree.splitlines()
    }
    pages = [*DOCS.glob("*.md"), *DOCS.glob("guides/*.md")]
    names = {str(page.relative_to(DOCS).with_suffix("")) for page in pages} - {"index"}
    assert names <= entries
