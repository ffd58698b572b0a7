"""A forward-mode rule of one's own for a function, from which reverse mode follows."""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function

from functorch_ext._describing import kind_of
from functorch_ext._pytree import map_tensors
from functorch_ext._rule_calls import (
    Bound,
    BoundCall,
    Ruled,
    apart,
    is_like,
    name_of,
    output_and,
    words,
)
from functorch_ext.reverse import vjp

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
        if self._bound.nondiff:
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
        call = _Call(self._func, self._bound, args, kwargs, self._rule)
        return call.outputs(_Pushforward.apply(call, *call.tensors))


class _Call(BoundCall):
    """A call, with the rule that it is differentiated by."""

    def __init__(
        self,
        func: Callable[..., Any],
        bound: Bound,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        rule: Callable[..., Any],
    ) -> None:
        super().__init__(func, bound, args, kwargs)
        self._rule = rule

    def tangents(self, primals: Any, tangents: Any) -> list[Any]:
        filled = [
            torch.zeros_like(x) if t is None else t for x, t in zip(primals, tangents, strict=True)
        ]
        returned = self._rule(*self.nondiff, self.args(primals), self.like_args(filled))
        output, pushed = output_and("its tangent", "custom_jvp: the rule", returned)
        values = self.tensor_outputs("the rule of a custom_jvp", output)
        found = self.tensor_outputs("the rule of a custom_jvp", pushed)
        return [self._checked(*pair) for pair in zip(values, found, strict=True)]

    def _checked(self, value: Any, tangent: Any) -> Tensor | None:
        """The tangent of an output, or ``None`` if that has none."""
        if isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex()):
            return None
        if not isinstance(tangent, Tensor) or not is_like(tangent, value):
            raise self._misfit(value, tangent)
        return tangent

    def _misfit(self, value: Tensor, tangent: Any) -> Exception:
        is_tensor = isinstance(tangent, Tensor)
        found = f"one of {words(tangent, value)}" if is_tensor else kind_of(tangent)
        return (ValueError if is_tensor else TypeError)(
            f"functorch_ext.custom_jvp: the rule of {name_of(self._func)} must return a tangent of "
            f"{words(value, tangent)}, as the output is, but returned {found}."
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
        places: list[int] = []  # of outputs that have a tangent
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]

        def linear(*some: Tensor) -> tuple[Any, ...]:
            tangents: list[Any] = [None] * len(primals)
            for position, tangent in zip(wanted, some, strict=True):
                tangents[position] = tangent
            pushed = call.tangents(primals, tangents)
            places[:] = [i for i, tangent in enumerate(pushed) if tangent is not None]
            return tuple(pushed[i] for i in places)

        # At 0, as good as any other point.
        _, pull_back = vjp(linear, *[torch.zeros_like(primals[i]) for i in wanted])
        pulled: list[Any] = [None] * len(primals)
        for position, cotangent in zip(
            wanted, pull_back(tuple(cotangents[i] for i in places)), strict=True
        ):
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
