"""What differs between the releases of PyTorch that this source is for, each in its one form.

The rest of the package doesn't ask which release runs. It asks here for what it needs, and gets the
form that the release has. Operators and C++ are ``csrc/codegen/releases.py``'s and
``csrc/releases/``'s.
"""

import importlib
from types import ModuleType

import torch

__all__ = ["KNOWN", "RELEASE", "check_release", "module_since", "since"]

# The releases that the tests have been run on.
KNOWN = ((2, 11), (2, 12), (2, 13), (2, 14), (2, 15))

RELEASE = tuple(int(part) for part in torch.__version__.split(".")[:2])


def since(release: tuple[int, int]) -> bool:
    """Whether it is this release of PyTorch that runs, or a later one."""
    return RELEASE >= release


def module_since(release: tuple[int, int], name: str) -> ModuleType | None:
    """A module that PyTorch has since a release; ``None`` in an earlier one."""
    return importlib.import_module(name) if since(release) else None


def check_release() -> None:
    """Says by name what a release that this source doesn't know has changed."""
    if RELEASE not in KNOWN:
        from functorch_ext._releases.self_check import check_unknown_release

        check_unknown_release()
