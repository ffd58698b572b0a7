"""Derivatives of the backward pass of a jitted function (``create_graph=True``).

The compiled backward pass computes from saved values, and autograd can't tell how those depend on
the inputs. So the function itself is called again, without compiling, and autograd records it.
"""

from typing import Any

import torch
from torch import Tensor

from functorch_ext._jit.watched import is_same
from functorch_ext._pytree import leaves_of

Inputs = tuple[tuple[Tensor, ...], list[int]]  # of a call, and their versions at that time


def remember(inputs: tuple[Tensor, ...]) -> Inputs:
    """What ``gradients`` needs of a call."""
    return inputs, [_version(each) for each in inputs]


def gradients(
    compiled: Any, kept: Inputs | None, cotangents: tuple[Tensor, ...]
) -> list[Tensor | None]:
    """The gradients by a call's inputs, which autograd can differentiate again."""
    if reason := _reason_against(compiled, kept):
        raise RuntimeError(
            f"functorch_ext.jit: the backward pass of a jitted function that {reason} can't be "
            "differentiated (create_graph=True). Put the derivative inside: jit(grad(f)), or "
            "transform the jitted function, as in grad(jit(f)), which then runs as it is."
        )
    assert kept is not None
    inputs = kept[0]
    gate = _Gate()
    with torch.enable_grad():
        args = [
            _Pass.apply(gate, x) if x.requires_grad else x for x in inputs[: compiled.arguments]
        ]
        outputs = [x for x in leaves_of(compiled.call.again(args)) if isinstance(x, Tensor)]
        by = [[*args, *inputs[compiled.arguments :]][i] for i in compiled.by]
        roots = [outputs[i] for i in compiled.differentiable]
        given = [cotangents[i] for i in compiled.differentiable]
        found = torch.autograd.grad(roots, by, given, create_graph=True, allow_unused=True)
    gate.is_open = True
    result: list[Tensor | None] = [None] * len(inputs)
    for position, gradient in zip(compiled.by, found):
        result[position] = gradient
    return result


def _reason_against(compiled: Any, kept: Inputs | None) -> str | None:
    """Why another call might compute something else."""
    if compiled.written:
        return "writes to its inputs"
    if compiled.draws:
        return "draws random numbers"
    if kept is None:
        return "has had its backward pass, without retain_graph=True,"
    if any(_version(x) != version for x, version in zip(*kept)):
        return "has an input that was written to since the call"
    if not all(is_same(place) for place in compiled.watched):
        return "closes over something that was replaced since the call"
    return None


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


class _Gate:
    """Whether cotangents pass on to what arguments were computed from.

    A closed-over leaf may be behind an argument too: then its gradient by way of the argument isn't
    asked for here. The outer backward pass computes that. Second derivatives pass.
    """

    is_open = False


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: _Gate, tensor: Tensor) -> Tensor:
        ctx.gate = gate
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, Tensor | None]:
        return None, cotangents[0] if ctx.gate.is_open else None
