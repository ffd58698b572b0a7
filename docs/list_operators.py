"""Writes docs/operators.md: how vmap computes each operator of PyTorch.

Made from the tables that register the rules, so that it cannot say anything else than what runs::

    python docs/list_operators.py
"""

import collections
from pathlib import Path

import torch

from functorch_ext import _C

PAGE = Path(__file__).parent / "operators.md"

HEADER = """# How vmap computes each operator

Written by `python docs/list_operators.py` from the tables in the compiled extension, for torch
{version}. Operators that only exist for other kinds of tensors (sparse, nested, quantized, and
those of other devices) are left out, and so are `out=` variants: they raise an error inside `vmap`.
Overloads stand behind the name of their operator.

| | operators |
| --- | --- |
{counts}
"""

ABOUT = {
    "rule": "Computed once for all samples. Each heading is a file in `csrc/batching/`.",
    "decomposition": "Made of other operators, which have their rules.",
    "view": "Views without a rule raise an error: their result could not share the memory.",
    "shape": (
        "Operators whose result has a shape that depends on the data raise an error, which says "
        "what to write instead, unless a rule above covers what samples share."
    ),
    "loop": (
        "Run once per sample, with a `FallbackWarning`: the internals of other operators that have "
        "rules, and what hardly anybody meets inside `vmap`."
    ),
}

TITLES = {
    "rule": "Batching rules",
    "decomposition": "Decompositions",
    "shape": "Shapes that depend on data",
    "view": "Views without a rule",
    "loop": "Loops",
}

# An operator is for strided tensors if it has a kernel under one of these.
STRIDED = ("CPU", "CUDA", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")


def has_kernel(name, key):
    return torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


def schema_of(name):
    base, _, overload = name.removeprefix("aten::").partition(".")
    return torch._C._get_schema(f"aten::{base}", overload)


def takes_tensors(schema):
    return any("Tensor" in str(argument.type) for argument in schema.arguments)


def way(name, rules):
    """How vmap computes the operator, or None if it is none of vmap's business."""
    schema = schema_of(name)
    if any(argument.is_out for argument in schema.arguments) or not takes_tensors(schema):
        return None
    if name in rules:
        return "rule"
    if has_kernel(name, "CompositeImplicitAutograd"):
        return "decomposition"
    if not any(has_kernel(name, key) for key in STRIDED):
        return None
    base, _, overload = name.removeprefix("aten::").partition(".")
    op = getattr(getattr(torch.ops.aten, base), overload or "default")
    if torch.Tag.dynamic_output_shape in op.tags:
        return "shape"
    if any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns):
        return "view"
    return "loop"


def listed(names):
    """`add` (Scalar, Tensor), `sin`, ..."""
    overloads = collections.defaultdict(list)
    for name in sorted(names):
        base, _, overload = name.removeprefix("aten::").partition(".")
        overloads[base].append(overload)
    parts = []
    for base, given in overloads.items():
        shown = ", ".join(overload or "default" for overload in given)
        parts.append(f"`{base}`" if given == [""] else f"`{base}` ({shown})")
    return ", ".join(parts)


def page():
    """The text of the page."""
    rules = {name: family for name, family, has_rule in _C.registered_operators() if has_rule}
    ways = collections.defaultdict(list)
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("aten::"):
            ways[way(name, rules)].append(name)
    counts = "\n".join(f"| {title} | {len(ways[key])} |" for key, title in TITLES.items())
    version = torch.__version__.partition("+")[0]
    parts = [HEADER.format(version=version, counts=counts)]
    for key, title in TITLES.items():
        parts.append(f"## {title}\n\n{ABOUT[key]}\n")
        if key != "rule":
            parts.append(listed(ways[key]) + "\n")
            continue
        families = collections.defaultdict(list)
        for name in ways["rule"]:
            families[rules[name]].append(name)
        for family in sorted(families):
            parts.append(f"### {family}\n\n{listed(families[family])}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
