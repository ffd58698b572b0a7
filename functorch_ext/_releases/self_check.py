"""What has changed in PyTorch, by name, where a release runs that this source doesn't know yet.

``expected.json`` says what the newest known release has: the functions that are replaced, with
their parameters, and the schemas of the operators that have rules of their own. It is written
there, by ``python -m functorch_ext._releases.self_check``.
"""

import hashlib
import importlib
import inspect
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from functorch_ext import _C

_EXPECTED = Path(__file__).parent / "expected.json"
_BUILTIN = "(a builtin function)"
# Their rules are made from the list of operators of the release that is built against.
_GENERATED = ("pointwise",)


def check_unknown_release() -> None:
    """Warns of what has changed.

    Raises:
        ImportError: A function that is to be replaced isn't there.
    """
    expected = json.loads(_EXPECTED.read_text())
    missing, changed = differences(expected)
    intro = (
        f"functorch_ext: torch {torch.__version__} runs, and this source was last tested with "
        f"torch {expected['torch']}."
    )
    if missing:
        raise ImportError(f"{intro} What it replaces is no longer there: {', '.join(missing)}.")
    if changed:
        warnings.warn(f"{intro} Changed since: {', '.join(changed)}.", stacklevel=3)


def differences(expected: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The names of functions that are gone; those of functions and operators that are others.

    What belongs to modules that aren't imported yet isn't looked at.
    """
    missing, changed = [], []
    for target, parameters in expected["functions"].items():
        module, _, name = target.partition(":")
        if module not in sys.modules:
            continue
        found = _found(sys.modules[module], name)
        if found is None:
            missing.append(f"{module}.{name}")
        elif _parameters_of(found) != parameters:
            changed.append(f"{module}.{name}")
    for name, digest in expected["operators"].items():
        if _digest_of(name) != digest:
            changed.append(name)
    return missing, changed


def _found(owner: Any, name: str) -> Any:
    for part in name.split("."):
        owner = getattr(owner, part, None)
    return owner


def _parameters_of(function: Any) -> str:
    try:
        return ", ".join(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return _BUILTIN


def _digest_of(operator: str) -> str:
    name, _, overload = operator.partition(".")
    try:
        schema = str(torch._C._get_schema(name, overload))
    except RuntimeError:
        return "gone"
    return hashlib.sha256(schema.encode()).hexdigest()[:8]


def _record() -> dict[str, Any]:
    """What the release that runs has. PyTorch's own functions have to be in their places."""
    importlib.import_module("torch._dynamo")
    importlib.import_module("torch.distributed.fsdp._fully_shard")
    from functorch_ext import patches

    targets = sorted({patch.target for patch in patches() if " " not in patch.target})
    patches().take_off()
    functions = {}
    for target in targets:
        parts = target.split(".")
        count = max(i for i in range(len(parts)) if ".".join(parts[:i]) in sys.modules)
        module, name = ".".join(parts[:count]), ".".join(parts[count:])
        found = _found(sys.modules[module], name)
        if found is not None:  # else it is added
            functions[f"{module}:{name}"] = _parameters_of(found)
    operators = {
        name: _digest_of(name)
        for name, family, _ in sorted(_C.registered_operators())
        if family not in _GENERATED
    }
    torch_version = torch.__version__.split("+")[0]
    return {"torch": torch_version, "functions": functions, "operators": operators}


if __name__ == "__main__":
    _EXPECTED.write_text(json.dumps(_record(), indent=1) + "\n")
