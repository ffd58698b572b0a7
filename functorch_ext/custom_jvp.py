"""A forward-mode rule of one's own for a function, from which reverse mode follows."""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function

from functorch_ext import _C
from functorch_ext._describing import kind_of
from functorch_ext._pytree import map_tensors
from functorch_ext._rule_calls import (
    BoundCall,
    Ruled,
    apart,
    output_and,
    words,
)

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class custom_jvp(Ruled, Generic[_Params, _Result]):  # noqa: N801  (a decorator)
    """Gives a function a rule of its own for tangents: a decorator, as JAX's of that name.

    Args:
        func: The function.
        nondiff_argnums: Positions of arguments that aren't differentiated by, and may be anything,
            such as functions.

    Returns:
        A function that computes the same. After ``defjvp(rule)`` it is differentiated by
        ``rule(*nondiff, primals, tangents)``, which returns ``(output, tangent)``: ``primals`` and
        ``tangents`` are tuples of the differentiable arguments and of theirs, and the tangent of
        the output must be linear in ``tangents``. Reverse mode transposes that linear map, and
        higher derivatives differentiate the rule.

    Raises:
        AttributeError: the function is called before ``defjvp`` or ``defjvps``.
        TypeError: the rule returns something else than a pair, or the tangent has another structure
            than the output, or isn't a tensor where that is.
        ValueError: a tangent has another shape, dtype or device than the output.

    Example::

        >>> @custom_jvp
        ... def log1pexp(x):
        ...     return torch.log1p(torch.exp(x))
        >>> @log1pexp.defjvp
        ... def rule(primals, tangents):  # no inf / inf where x is large
        ...     (x,), (t,) = primals, tangents
        ...     return log1pexp(x), t * torch.sigmoid(x)
        >>> grad(log1pexp)(torch.tensor(100.0))
        tensor(1.)
    """

    def __init__(self, func: Callable[_Params, _Result], nondiff_argnums: Any = ()) -> None:
        super().__init__("custom_jvp", func, nondiff_argnums)
        self._rule: Callable[..., Any] | None = None

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Sets the rule, and returns it, so that this is a decorator too."""
        self._rule = rule
        return rule

    def defjvps(self, *rules: Callable[..., Any] | None) -> None:
        """Sets a rule for each argument: ``rule(tangent, output, *primals)``, or ``None`` for 0.

        They take functions of tensors with one tensor as output, and no ``nondiff_argnums``.
        """
        if self.bound.nondiff:
            raise TypeError("functorch_ext.custom_jvp: defjvps takes no nondiff_argnums.")

        def rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
            output: Any = self(*primals)  # type: ignore[call-arg]
            pairs = zip(rules, tangents, strict=True)
            parts = [part(t, output, *primals) for part, t in pairs if part is not None]
            return output, sum(parts, torch.zeros_like(output))

        self._rule = rule

    def __call__(self, *args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        """The function; see the class."""
        if self._rule is None:
            raise self.no_rule("defjvp(rule)")
        call = _Call(self, self._rule, args, kwargs)
        return call.outputs(_Pushforward.apply(call, *call.tensors))


class _Call(BoundCall):
    """A call, with the rule that it is differentiated by."""

    def tangents(self, primals: Any, tangents: Any) -> list[Any]:
        filled = [
            torch.zeros_like(x) if t is None else t for x, t in zip(primals, tangents, strict=True)
        ]
        rule = self._rules
        returned = rule(*self.nondiff, self.args(primals), self.like_args(filled))
        output, pushed = output_and("its tangent", "custom_jvp: the rule", returned)
        values = self.tensor_outputs("the rule of a custom_jvp", output)
        found = self.tensor_outputs("the rule of a custom_jvp", pushed)
        return [*map(self._checked, values, found)]

    def _checked(self, value: Any, tangent: Any) -> Tensor | None:
        """The tangent of an output, or ``None`` if that has none."""
        if isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex()):
            return None
        if not isinstance(tangent, Tensor) or not _C.is_like(tangent, value):
            raise self._misfit(value, tangent)
        return tangent

    def _misfit(self, value: Tensor, tangent: Any) -> Exception:
        is_tensor = isinstance(tangent, Tensor)
        found = f"one of {words(tangent, value)}" if is_tensor else kind_of(tangent)
        return (ValueError if is_tensor else TypeError)(
            f"functorch_ext.custom_jvp: the rule of {self.name} must return a tangent "
            f"of {words(value, tangent)}, as the output is, but returned {found}."
        )


class _Pushforward(Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        return apart(call.keep_outputs(call.plain(tensors)), tensors)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Any, ...]:
        return tuple(ctx.call.tangents(ctx.saved_tensors, tangents))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        call, primals = ctx.call, ctx.saved_tensors
        if not (torch.is_grad_enabled() or _C.tangent_flows(primals)):
            primals = tuple([x.detach() for x in primals])  # constants of the linear map
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]

        def transposed(frame: _C.ReverseFrame) -> list[Tensor]:
            # At 0, as good as any other point.
            zeros = frame.differentiable([torch.zeros_like(primals[i]) for i in wanted])
            tangents: list[Any] = [None] * len(primals)
            for position, tangent in zip(wanted, zeros, strict=True):
                tangents[position] = tangent
            pairs = zip(call.tangents(primals, tangents), cotangents, strict=True)
            pushed, given = zip(*[pair for pair in pairs if pair[0] is not None], strict=True)
            return [*map(frame.strip, frame.pull_back(pushed, given, False))]

        pulled: list[Any] = [None] * len(primals)
        for position, cotangent in zip(wanted, _C.run_reverse(transposed), strict=True):
            pulled[position] = cotangent
        return None, *pulled


class _Stop(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        output = x.data
        ctx.mark_non_differentiable(output)
        return output

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> None:
        return None

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> None:
        return None


def stop_gradient(tree: Any) -> Any:
    """The same values, as constants: no derivative of any order or mode flows through.

    ``detach`` stops reverse mode alone: tangents pass it.

    Args:
        tree: A pytree of tensors; other leaves stay.

    Returns:
        A pytree of the same structure, whose tensors share memory with those of ``tree``.

    Example::

        >>> grad(lambda x: x * stop_gradient(x))(torch.tensor(3.0))
        tensor(3.)
    """
    return map_tensors(_Stop.apply, tree)
