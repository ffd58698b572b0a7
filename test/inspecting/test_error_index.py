"""Errors inside transforms name the entry of the documentation that explains them."""

import re
from pathlib import Path

import pytest
import torch

from functorch_ext import grad, vmap
from functorch_ext._inspect.error_index import ENTRIES, page_of

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "errors.md"


def examples():
    """The messages that the page shows, by the anchor of their entry."""
    found = {}
    for entry in re.split(r"^\(", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        anchor, text = entry.split(")=", 1)
        if messages := re.findall(r"```text\n(\w+Error: .*?)```", text, re.DOTALL):
            found[anchor] = messages
    return found


def test_entries_are_those_of_the_page():
    assert list(ENTRIES) == list(examples())


@pytest.mark.parametrize("anchor", ENTRIES)
def test_messages_of_an_entry_lead_to_it(anchor):
    for message in examples()[anchor]:
        assert page_of(message) == f"guides/errors.html#{anchor}"


def note_of(function, *args):
    with pytest.raises(RuntimeError) as caught:
        function(*args)
    (note,) = caught.value.__notes__
    return note.split("\n")


def test_a_note_names_the_page():
    outside = torch.zeros(2)
    *_, last = note_of(vmap(grad(lambda x: outside.add_(x.detach()).sum())), torch.ones(3, 2))
    assert last == "  explained in the documentation: guides/errors.html#written-outside"


def test_other_errors_name_none():
    lines = note_of(vmap(lambda x: x @ torch.ones(7)), torch.ones(3, 2))
    assert not any("documentation" in line for line in lines)
