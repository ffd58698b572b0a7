"""Hands Dynamo the polyfills, in place of our functions."""

from torch._dynamo import substitute_in_graph
from torch._dynamo.variables.builder import VariableBuilder
from torch._dynamo.variables.constant import ConstantVariable

import functorch_ext
from functorch_ext._dynamo import entry, polyfills

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


def install() -> None:
    for name in _SUBSTITUTED:
        substitute = substitute_in_graph(getattr(functorch_ext, name), skip_signature_check=True)
        substitute(getattr(polyfills, name))
    substitute_in_graph(entry.call_transform)(polyfills.traced_call)
    taken_for_false = lambda builder, value: ConstantVariable.create(False)
    VariableBuilder._id_dispatch()[id(entry.EAGER)] = taken_for_false
