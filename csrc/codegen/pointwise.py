"""The operators tagged ``pointwise``: one batching rule serves them all.

Makes two files to be included one after the other::

    #include "pointwise_includes.inc"   // #include <ATen/ops/add_ops.h> and so on
    #define FUNCTORCH_EXT_POINTWISE(op) ...at::_ops::op...
    #include "pointwise_table.inc"      // FUNCTORCH_EXT_POINTWISE(add_Tensor) and so on
"""

from collections.abc import Sequence

from torchgen.model import NativeFunction, SchemaKind

# Memory formats: see factories.cpp. A kernel of oneDNN, and large results: see pointwise.cpp.
OTHER_RULES = {"clone", "gelu_backward", "pow.Tensor_Scalar"}

# Releases of PyTorch before 2.13 have these without the tag.
TAGGED_LATER = {
    "_conj_physical",
    "celu_",
    "elu_",
    "hardsigmoid_",
    "hardtanh_",
    "leaky_relu",
    "leaky_relu_",
}


def is_pointwise(function: NativeFunction) -> bool:
    """Whether the pointwise rule applies: Tensors in, Tensors out, not a decomposing operator."""
    return (
        ("pointwise" in function.tags or str(function.func.name) in TAGGED_LATER)
        and not OTHER_RULES & {function.root_name, str(function.func.name)}
        and function.func.kind() in (SchemaKind.functional, SchemaKind.inplace)
        and not function.has_composite_implicit_autograd_kernel
        and any(argument.type.is_tensor_like() for argument in function.func.arguments.flat_all)
        and any(result.type.is_tensor_like() for result in function.func.returns)
    )


def generate(functions: Sequence[NativeFunction]) -> dict[str, str]:
    """The table of pointwise operators (names of structs in at::_ops) and their includes."""
    chosen = [function for function in functions if is_pointwise(function)]
    rows = sorted(f"FUNCTORCH_EXT_POINTWISE({f.func.name.unambiguous_name()})\n" for f in chosen)
    includes = sorted({f"#include <ATen/ops/{f.root_name}_ops.h>\n" for f in chosen})
    return {"pointwise_table.inc": "".join(rows), "pointwise_includes.inc": "".join(includes)}
