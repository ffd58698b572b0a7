"""Refuses to load the compiled module under a torch that it was not built for.

PyTorch's C++ interface changes between releases: a module built for another one would stop with an
undefined symbol, or go wrong in silence. So the two versions are compared first, in Python.
"""

import re

import torch

__all__ = ["check_torch_version"]

# The local part that names the accelerator: such builds of one release share the C++ interface.
_ACCELERATOR = re.compile(r"\+(cpu|cu\d+|rocm[\d.]+|xpu)$")


def check_torch_version(built_for: str) -> None:
    """Raises an error unless the torch that runs is the release ``built_for``.

    Args:
        built_for: ``torch.__version__`` at build time, such as ``"2.13.0+cpu"``.

    Raises:
        ImportError: it names both versions and says how to build again.

    Example::

        >>> check_torch_version(torch.__version__)
    """
    running = str(torch.__version__)
    if _ACCELERATOR.sub("", running) != _ACCELERATOR.sub("", built_for):
        raise ImportError(
            f"functorch_ext was built for torch {built_for}, but torch {running} is running. "
            "Build it again for this torch: run `make build` in its source folder, or "
            "`pip install --no-build-isolation .` there."
        )
