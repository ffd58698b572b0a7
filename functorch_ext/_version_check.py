"""Refuses to load the compiled module under a torch or a Python that it was not built for.

PyTorch's C++ interface changes between releases: a module built for another one would stop with an
undefined symbol, or go wrong in silence. Another Python wouldn't find the module at all. So the
versions are compared first.
"""

import re
import sys

import torch

__all__ = ["check_versions"]

# The local part that names the accelerator: such builds of one release share the C++ interface.
_ACCELERATOR = re.compile(r"\+(cpu|cu\d+|rocm[\d.]+|xpu)$")


def check_versions(torch_version: str, python_version: str) -> None:
    """Raises an error unless what runs is what the module was built for.

    Args:
        torch_version: ``torch.__version__`` at build time, such as ``"2.13.0+cpu"``.
        python_version: Python's, such as ``"3.11"``.

    Raises:
        ImportError: it names the versions and says how to build again.

    Example::

        >>> import sys
        >>> check_versions(torch.__version__, "{}.{}".format(*sys.version_info))
    """
    running = str(torch.__version__)
    if _ACCELERATOR.sub("", running) != _ACCELERATOR.sub("", torch_version):
        raise _mismatch(f"torch {torch_version}", f"torch {running}")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python != python_version:
        raise _mismatch(f"Python {python_version}", f"Python {python}")


def _mismatch(built_for: str, running: str) -> ImportError:
    return ImportError(
        f"functorch_ext was built for {built_for}, but {running} is running. "
        f"Build it again for this {running.split()[0]}: run `make build` in its source folder, or "
        "`pip install --no-build-isolation .` there."
    )
