"""What TorchDynamo, the front end of ``torch.compile`` and ``torch.export``, is told about us.

Importing it takes longer than importing the rest of PyTorch, so it is told when somebody else
imports it.
"""

import importlib.machinery
import sys
from typing import Any


def install() -> None:
    """Teaches Dynamo at once if it has been imported, else as soon as it is."""
    if "torch._dynamo" in sys.modules:
        _teach()
    else:
        sys.meta_path.insert(0, _WhenImported())


def _teach() -> None:
    from functorch_ext._dynamo import frames, substitutes, suspension, variables

    suspension.install()
    frames.install()
    variables.install()
    substitutes.install()


class _WhenImported:
    """Finds Dynamo as Python would, once, and teaches it when its module has run."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "torch._dynamo":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec and spec.loader
        run = spec.loader.exec_module

        def run_and_teach(module: Any) -> None:
            run(module)
            _teach()

        spec.loader.exec_module = run_and_teach
        return spec
