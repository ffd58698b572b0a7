"""The operators that PyTorch differentiates in reverse mode alone.

``torchgen`` ships derivatives.yaml too: the formulas from which PyTorch's autograd is generated. An
operator with a formula of reverse mode and none of forward mode is a row of an initializer list of
pairs of names: its own, and that of the operator that computes the same without mutation.
"""

from collections.abc import Sequence
from pathlib import Path

import torchgen
from torchgen.api.autograd import (
    NativeFunctionWithDifferentiabilityInfo,
    match_differentiability_info,
)
from torchgen.model import NativeFunction, SchemaKind
from torchgen.native_function_generation import pre_group_native_functions
from torchgen.packaged.autograd.load_derivatives import load_derivatives

# PyTorch has a formula, but it gives zero where another argument asks for what it doesn't cover.
INCOMPLETE = {"scatter_reduce.two", "scatter_reduce_.two"}


def generate(functions: Sequence[NativeFunction]) -> dict[str, str]:
    """The table."""
    functional = {
        group[kind].func.name: group[SchemaKind.functional].func.name
        for group in pre_group_native_functions(functions).values()
        for kind in (SchemaKind.functional, SchemaKind.inplace)
        if kind in group and SchemaKind.functional in group
    }
    packaged = Path(torchgen.__file__).parent / "packaged"
    infos, _ = load_derivatives(
        str(packaged / "autograd" / "derivatives.yaml"),
        str(packaged / "ATen" / "native" / "native_functions.yaml"),
        str(packaged / "ATen" / "native" / "tags.yaml"),
    )
    rows = (
        f'{{"aten::{each.func.func.name}", "aten::{functional[each.func.func.name]}"}},\n'
        for each in match_differentiability_info(list(functions), infos)
        if each.func.func.name in functional and lacks_forward(each)
    )
    return {"without_forward_mode.inc": "".join(sorted(rows))}


def lacks_forward(each: NativeFunctionWithDifferentiabilityInfo) -> bool:
    """Whether it has derivatives, but of reverse mode alone."""
    function = each.func
    if str(function.func.name) in INCOMPLETE:
        return True
    if function.is_view_op or function.has_composite_implicit_autograd_kernel or not each.info:
        return False
    info = each.info.get("Default")
    has_forward = bool((each.fw_derivatives or {}).get("Default"))
    if info is None or not info.has_derivatives or has_forward:
        return False
    in_place = function.func.kind() == SchemaKind.inplace
    return in_place or any("not_implemented" not in each.formula for each in info.derivatives)
