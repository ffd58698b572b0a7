"""Writes docs/patches.md: what the package replaces in PyTorch's Python code.

Made from the registry of patches, so that it cannot say anything else than what is done::

    python docs/list_patches.py
"""

from pathlib import Path

# Some are made once PyTorch's module is imported.
import torch._dynamo  # noqa: F401
import torch.distributed.fsdp._fully_shard
import torch.nn.attention.flex_attention  # noqa: F401

from functorch_ext import patches

PAGE = Path(__file__).parent / "patches.md"

HEADER = """# What is replaced in PyTorch

Written by `python docs/list_patches.py` from `functorch_ext.patches()`.

Operators are given kernels through the dispatcher, which replaces nothing. These functions of
PyTorch's Python code look below the dispatcher, at storages, graphs or C functions, so they are
replaced at import by ones that know of transforms. Builtin functions stay the objects that they
are: only the C function behind each is exchanged. `functorch_ext.patches().take_off()` gives
PyTorch its own functions back, `put_on()` replaces them again.

`python -m benchmarks.plain_programs` counts what that costs programs without transforms.

| Replaced | Why | Cost outside of transforms |
| --- | --- | --- |
"""


def page() -> str:
    """The whole page."""
    rows = [
        f"| `{patch.target}` | {patch.why} | {patch.cost} |\n"
        for patch in sorted(patches(), key=str)
    ]
    return HEADER + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page())
