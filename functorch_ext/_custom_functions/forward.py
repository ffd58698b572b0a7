"""Forward mode through custom autograd functions that have no ``jvp`` staticmethod.

Their tangents come by reverse mode, taken twice: a backward is linear in its cotangents, and the
backward of that is the derivative forward.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd import Function

from functorch_ext import _C
from functorch_ext._custom_functions.context import as_tuple

_no_jvp = Function.jvp


def lacks_jvp(cls: type[Function]) -> bool:
    """Whether a function says nothing of its tangents."""
    return cls.jvp is _no_jvp


def push_forward(name: str, apply: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """``apply(*args)``, with tangents.

    Args:
        name: What the function is called.
        apply: Applies it to arguments none of which has a tangent.
        args: The arguments, of which one has a tangent.
    """
    positions = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)]
    returned: list[Any] = []
    is_first = True

    def of_tensors(tensors: list[Tensor]) -> list[Tensor]:
        full = list(args)
        for position, tensor in zip(positions, tensors, strict=True):
            full[position] = tensor
        versions = [tensor._version for tensor in tensors]
        outputs = apply(*full)
        if any(x._version != v for x, v in zip(tensors, versions, strict=True)):
            raise NotImplementedError(
                f"functorch_ext: a tangent flows into {name}, which writes to an argument "
                "and has no jvp staticmethod. Give it one."
            )
        if is_first:  # a backward pass calls again, and keeps nothing
            returned.append(outputs)
        return [output for output in as_tuple(outputs) if isinstance(output, Tensor)]

    pushed = iter(_C.push_forward_by_reverse(of_tensors, [args[i] for i in positions], name))
    is_first, outputs = False, returned.pop()
    full = [next(pushed) if isinstance(x, Tensor) else x for x in as_tuple(outputs)]
    return tuple(full) if isinstance(outputs, tuple) else full[0]
