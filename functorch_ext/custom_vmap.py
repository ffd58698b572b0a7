"""A batching rule of one's own for a function."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function

from functorch_ext import _C
from functorch_ext._pytree import flatten, leaves_of
from functorch_ext._rule_calls import RuleCall, Ruled, apart, output_and
from functorch_ext._taylor.carrier import Taylor
from functorch_ext.forward import jvp
from functorch_ext.reverse import vjp

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class custom_vmap(Ruled, Generic[_Params, _Result]):  # noqa: N801  (a decorator)
    """Gives a function a batching rule of its own: a decorator, as JAX's of that name.

    Args:
        func: The function of one sample.

    Returns:
        A function that computes the same. After ``def_vmap(rule)``, ``vmap`` calls
        ``rule(axis_size, in_batched, *args)`` in its place wherever an argument is mapped.
        ``in_batched`` is a list with an entry per argument, in its structure: whether a tensor has
        the samples in its dimension 0. The rule returns ``(output, out_batched)``, of which the
        second has the output's structure, or is one bool for all of it.

        What differentiates around the ``vmap`` differentiates the rule, and what differentiates
        inside differentiates ``func``. In nested maps the rule is itself mapped.

    Raises:
        AttributeError: the function is mapped before ``def_vmap``.
        TypeError: the rule returns something else.

    Example::

        >>> @custom_vmap
        ... def solve(a, b):
        ...     return torch.linalg.solve(a, b)
        >>> @solve.def_vmap
        ... def rule(axis_size, in_batched, a, b):
        ...     if in_batched == [False, True]:  # one matrix: all samples are columns of one solve
        ...         return solve(a, b.mT).mT, True
        ...     a, b = (x if is_batched else x.expand(axis_size, *x.shape)
        ...             for x, is_batched in zip((a, b), in_batched))
        ...     return torch.linalg.solve(a, b), True
        >>> vmap(solve, in_dims=(None, 0))(2 * torch.eye(2), torch.ones(3, 2)).shape
        torch.Size([3, 2])
    """

    def __init__(self, func: Callable[_Params, _Result]) -> None:
        super().__init__("custom_vmap", func)
        self._rule: Callable[..., Any] | None = None

    def def_vmap(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Sets the rule, and returns it, so that this is a decorator too."""
        self._rule = rule
        return rule

    def __call__(self, *args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        """The function; see the class."""
        call = _Call(self, self.bound(args, kwargs))
        mapped = _mapped_alone(call)
        return call.outputs(_Mapped.apply(call, *call.tensors) if mapped is None else mapped)


class _Call(RuleCall):
    """A call, with the rule that it is mapped by."""

    def __init__(self, ruled: Any, args: tuple[Any, ...]) -> None:
        super().__init__(args)
        self._ruled = ruled

    def plain(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.keep_outputs(self._ruled.func(*self.args(tensors)))

    def mapped(
        self, axis_size: int, dims: tuple[int | None, ...], tensors: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        if self._ruled._rule is None:
            raise self._ruled.no_rule("def_vmap(rule)")
        batched = [dim is not None for dim in dims]
        fronted = [
            x if dim is None else x.movedim(dim, 0) for x, dim in zip(tensors, dims, strict=True)
        ]
        in_batched = list(self.like_args(batched))
        returned = self._ruled._rule(axis_size, in_batched, *self.args(fronted))
        outputs, out_batched = output_and("out_batched", "custom_vmap: the rule", returned)
        kept = self.keep_outputs(outputs)
        if isinstance(out_batched, bool):
            flags = [out_batched] * len(kept)
        else:
            if flatten(out_batched)[1] != flatten(outputs)[1]:
                raise TypeError(
                    "functorch_ext.custom_vmap: out_batched must be a bool or have the structure "
                    f"of the output, {flatten(outputs)[1]}, but is {flatten(out_batched)[1]}."
                )
            pairs = zip(leaves_of(outputs), leaves_of(out_batched), strict=True)
            flags = [bool(flag) for output, flag in pairs if isinstance(output, Tensor)]
        return kept, tuple(0 if flag else None for flag in flags)


def _mapped_alone(call: _Call) -> list[Tensor] | None:
    """The rule's outputs where a vmap is all that sees the call; ``None`` if others may."""
    tensors = call.tensors
    level = _C.level_of(tensors)
    if level is None or not level.has_samples or level.differentiates(tensors):
        return None
    if torch._C._len_torch_function_stack() > 0 or any([type(x) is Taylor for x in tensors]):
        return None
    pairs = [level.unwrap(x) for x in tensors]
    dims = tuple([dim for _, dim in pairs])
    if all([dim is None for dim in dims]):
        return None
    values = tuple([value for value, _ in pairs])
    outputs, out_dims = _C.run_below(level, call.mapped, level.batch_size, dims, values)
    # A value that the rule returns as it is, perhaps written to, is that of the tensor itself.
    given = dict(zip(map(id, values), tensors, strict=True))
    found = zip(outputs, out_dims, strict=True)
    return [given[id(each)] if id(each) in given else level.wrap(each, dim) for each, dim in found]


class _Mapped(Function):
    @staticmethod
    def forward(call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        return apart(call.plain(*tensors), tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.call, tensors = inputs[0], inputs[1:]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def vmap(info: Any, in_dims: Any, call: _Call, *tensors: Tensor) -> Any:
        return call.mapped(info.batch_size, in_dims[1:], tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        at = functools.partial(_of_some, ctx.call.plain, tensors, wanted)
        _, pull_back, flags = vjp(at, *[tensors[i] for i in wanted], has_aux=True)
        given = tuple(itertools.compress(cotangents, flags))
        pulled: list[Any] = [None] * len(tensors)
        for place, cotangent in zip(wanted, pull_back(given), strict=True):
            pulled[place] = cotangent
        return None, *pulled

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        pushed = [i for i, tangent in enumerate(tangents) if tangent is not None]
        at = functools.partial(_of_some, ctx.call.plain, tensors, pushed)
        primals = tuple(tensors[i] for i in pushed)
        given = tuple(tangents[i] for i in pushed)
        _, found, flags = jvp(at, primals, given, has_aux=True)
        remaining = iter(found)
        return tuple(next(remaining) if flag else None for flag in flags)


def _of_some(
    function: Callable[..., tuple[Tensor, ...]],
    tensors: tuple[Tensor, ...],
    places: list[int],
    *some: Tensor,
) -> tuple[tuple[Tensor, ...], list[bool]]:
    """What can be differentiated of a function, by the tensors at the places: which outputs can, as
    aux. Others are of integers, say."""
    given = list(tensors)
    for place, tensor in zip(places, some, strict=True):
        given[place] = tensor
    outputs = function(*given)
    flags = [x.is_floating_point() or x.is_complex() for x in outputs]
    return tuple(itertools.compress(outputs, flags)), flags
