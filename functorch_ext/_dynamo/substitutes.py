"""Hands Dynamo the polyfills, in place of our functions."""

from torch._dynamo import substitute_in_graph
from torch._dynamo.variables.builder import VariableBuilder
from torch._dynamo.variables.constant import ConstantVariable

import functorch_ext
from functorch_ext._dynamo import entry, polyfills, second_order

_SUBSTITUTED = (
    "functional_call",
    "functionalize",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "vjp",
    "vmap",
)
_SECOND_ORDER = ("divergence", "ggnvp", "hessian_diag", "hvp", "laplacian", "vhp")


def install() -> None:
    for module, names in ((polyfills, _SUBSTITUTED), (second_order, _SECOND_ORDER)):
        for name in names:
            original = getattr(functorch_ext, name)
            substitute = substitute_in_graph(original, skip_signature_check=True)
            substitute(getattr(module, name))
    substitute_in_graph(entry.call_transform)(second_order.traced_call)
    taken_for_false = lambda builder, value: ConstantVariable.create(False)
    VariableBuilder._id_dispatch()[id(entry.EAGER)] = taken_for_false
