"""Which operator says the same without mutation, and which copies instead of viewing.

Both tables are rows of an initializer list of pairs of names, ``{"aten::add_.Tensor",
"aten::add.Tensor"},``, to be included between the braces of a map.
"""

from collections.abc import Sequence

from torchgen.model import NativeFunction, OperatorName, SchemaKind
from torchgen.native_function_generation import pre_group_native_functions


def _rows(pairs: dict[OperatorName, OperatorName]) -> str:
    rows = (f'{{"aten::{key}", "aten::{value}"}},\n' for key, value in pairs.items())
    return "".join(sorted(rows))


def generate_functional_variants(functions: Sequence[NativeFunction]) -> dict[str, str]:
    """From every in-place, out= and otherwise mutating operator to its functional variant."""
    pairs = {}
    for group in pre_group_native_functions(functions).values():
        functional = group.get(SchemaKind.functional)
        if functional is None:
            continue
        for kind in (SchemaKind.inplace, SchemaKind.out, SchemaKind.mutable):
            if kind in group:
                pairs[group[kind].func.name] = functional.func.name
    return {"functional_variants.inc": _rows(pairs)}


def generate_view_copy_variants(functions: Sequence[NativeFunction]) -> dict[str, str]:
    """From every view to the operator that returns a fresh tensor instead (view, view_copy)."""
    names = {function.func.name for function in functions}
    pairs = {}
    for function in functions:
        if function.is_view_op and not function.func.name.name.inplace:
            name = function.func.name
            copy = OperatorName.parse(f"{name.name.base}_copy.{name.overload_name}".rstrip("."))
            if copy in names:
                pairs[name] = copy
    return {"view_copy_variants.inc": _rows(pairs)}
