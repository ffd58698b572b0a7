"""Tests that rest on what releases of PyTorch differ in: each says which it is for."""

import pytest

from functorch_ext._releases import RELEASE
from functorch_ext._releases import since as is_since


def since(release, why):
    """A mark: the test is for this release and later ones."""
    number = ".".join(map(str, release))
    return pytest.mark.skipif(not is_since(release), reason=f"before torch {number}: {why}")


def only(release, why):
    """A mark: the test is for this release alone."""
    number = ".".join(map(str, release))
    return pytest.mark.skipif(RELEASE != release, reason=f"only with torch {number}: {why}")


def from_release(release, table, *names):
    """A table without the rows that are for this release and later ones, where an earlier runs."""
    if is_since(release):
        return table
    return {name: row for name, row in table.items() if not name.startswith(names)}


def until_release(release, table, *names):
    """A table without the rows that are for releases before this one, where a later runs."""
    if not is_since(release):
        return table
    return {name: row for name, row in table.items() if not name.startswith(names)}


def until(release, why):
    """A mark: the test is for releases before this one."""
    number = ".".join(map(str, release))
    return pytest.mark.skipif(is_since(release), reason=f"since torch {number}: {why}")
