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

| How | Operators | |
| --- | ---: | --- |
{summary}

A family is a file in `csrc/batching/`. Overloads are counted one by one, and share a row.

| Operator | Overloads | How | Family |
| --- | --- | --- | --- |
{rows}
"""

ABOUT = {
    "rule": "Computed once for all samples.",
    "decomposition": "Made of other operators, which have their rules.",
    "shape": (
        "The shape of the result depends on the data: an error says what to write instead, unless "
        "a rule covers what samples share."
    ),
    "view": "A view without a rule raises an error: its result could not share the memory.",
    "loop": (
        "Once per sample, with a `FallbackWarning`: the internals of other operators that have "
        "rules, and what hardly anybody meets inside `vmap`."
    ),
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


def rows_of(ways, rules):
    """A row for each operator, unless its overloads are computed in several ways."""
    overloads = collections.defaultdict(list)
    for how in ABOUT:
        for name in ways[how]:
            base, _, overload = name.removeprefix("aten::").partition(".")
            overloads[base, how, rules.get(name, "")].append(overload or "default")
    for (base, how, family), given in sorted(overloads.items()):
        shown = "" if given == ["default"] else ", ".join(sorted(given))
        yield f"| `{base}` | {shown} | {how} | {family} |"


def page():
    """The text of the page."""
    rules = {name: family for name, family, has_rule in _C.registered_operators() if has_rule}
    ways = collections.defaultdict(list)
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("aten::"):
            ways[way(name, rules)].append(name)
    summary = "\n".join(f"| {how} | {len(ways[how])} | {ABOUT[how]} |" for how in ABOUT)
    version = torch.__version__.partition("+")[0]
    rows = "\n".join(rows_of(ways, rules))
    return HEADER.format(version=version, summary=summary, rows=rows)


if __name__ == "__main__":
    PAGE.write_text(page())
