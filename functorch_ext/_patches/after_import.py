"""Patches of modules that take long to import: they wait until somebody else imports them."""

import importlib.machinery
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def when_imported(name: str, then: Callable[[ModuleType], None]) -> None:
    """Calls ``then(module)`` when the module has been imported; at once if it is there already."""
    if module := sys.modules.get(name):
        then(module)
    else:
        sys.meta_path.insert(0, _AfterImport(name, then))


class _AfterImport:
    """Finds a module as Python would, and does something to it when it has run."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self.name, self.then = name, then

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next(filter(None, found), None)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        run = loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            run(module)
            self.then(module)
            sys.meta_path.remove(self)  # at last: what is interrupted before is imported anew

        loader.exec_module = run_and_patch
        return spec
