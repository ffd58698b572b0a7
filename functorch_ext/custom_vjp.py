"""A reverse-mode rule of one's own for a function."""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function

from functorch_ext import _C
from functorch_ext._describing import kind_of
from functorch_ext._rule_calls import BoundCall, Ruled, output_and, words
from functorch_ext._skeletons import taken_apart

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class custom_vjp(Ruled, Generic[_Params, _Result]):  # noqa: N801  (a decorator)
    """Gives a function a pullback of its own: a decorator, as JAX's of that name.

    Args:
        func: The function, as it is computed where nothing is differentiated.
        nondiff_argnums: Positions of arguments that aren't differentiated by, and may be anything,
            such as functions.

    Returns:
        A function that computes the same. After ``defvjp(fwd, bwd)`` it is differentiated by

        - ``fwd(*args)``, which returns ``(output, residuals)``: what ``func`` returns, and a pytree
          of what the pullback needs;
        - ``bwd(*nondiff, residuals, cotangent)``, which returns a tuple with a cotangent for each
          differentiable argument, in its structure, shapes and dtypes; ``None`` stands for zeros.

        It composes with every transform: forward mode pushes tangents through by two pullbacks, and
        higher derivatives differentiate ``fwd`` and ``bwd``.

    Raises:
        AttributeError: the function is called before ``defvjp``.
        TypeError: a rule returns another structure than its arguments or the outputs have, or
            ``bwd`` something else than tensors and ``None``.
        ValueError: ``bwd`` returns a cotangent of another shape, dtype or device than its argument
            has.

    Example::

        >>> @custom_vjp
        ... def clipped_gradient(x):
        ...     return x
        >>> clipped_gradient.defvjp(
        ...     lambda x: (x, None),
        ...     lambda _, cotangent: (cotangent.clamp(-1, 1),),
        ... )
        >>> grad(lambda x: (3 * clipped_gradient(x)).sum())(torch.ones(2))
        tensor([1., 1.])
    """

    def __init__(self, func: Callable[_Params, _Result], nondiff_argnums: Any = ()) -> None:
        super().__init__("custom_vjp", func, nondiff_argnums)
        self._rules: tuple[Callable[..., Any], Callable[..., Any]] | None = None

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Sets the rule: ``fwd`` evaluates and keeps residuals, ``bwd`` pulls back."""
        self._rules = fwd, bwd

    def __call__(self, *args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        """The function; see the class."""
        if self._rules is None:
            raise self.no_rule("defvjp(fwd, bwd)")
        call = _Call(self, self._rules, args, kwargs)
        return call.outputs(_Pullback.apply(call, *call.tensors))


class _Call(BoundCall):
    """A call, with the rules that it is differentiated by."""

    def forward(self, tensors: Any) -> tuple[Any, Any]:
        fwd, _ = self._rules
        returned = fwd(*self.all_args(tensors))
        return output_and("the residuals", "custom_vjp: fwd", returned)

    def backward(self, primals: Any, residuals: Any, cotangents: Any) -> list[Any]:
        _, bwd = self._rules
        returned = bwd(*self.nondiff, residuals, self.like_outputs(cotangents))
        pulled = self.of_tensors("bwd of a custom_vjp", returned)
        for index, (primal, cotangent) in enumerate(zip(primals, pulled, strict=True)):
            if cotangent is not None and not _fits(cotangent, primal):
                raise self._misfit(index, primal, cotangent)
        return pulled

    def _misfit(self, index: int, primal: Tensor, cotangent: Any) -> Exception:
        is_tensor = isinstance(cotangent, Tensor)
        found = f"one of {words(cotangent, primal)}" if is_tensor else kind_of(cotangent)
        return (ValueError if is_tensor else TypeError)(
            f"functorch_ext.custom_vjp: bwd of {self.name} must return a cotangent of "
            f"{words(primal, cotangent)} for {self.name_of_tensor(index)}, as the argument is, or "
            f"None for zeros, but returned {found}."
        )


def _fits(cotangent: Any, primal: Tensor) -> bool:
    """Can it be the argument's? Autograd itself would sum, expand or convert it."""
    if not isinstance(cotangent, Tensor):
        return False
    if _C.is_like(cotangent, primal):
        return True
    return not (primal.is_floating_point() or primal.is_complex())  # it is dropped


class _Pullback(Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        if not any(ctx.needs_input_grad):
            return call.keep_outputs(call.plain(tensors))
        # fwd may call the function itself, which is then evaluated.
        outputs, residuals = call.forward([x.detach() for x in tensors])
        kept, ctx.residuals = taken_apart(residuals)
        ctx.call = call
        ctx.save_for_backward(*tensors, *kept)
        return call.keep_outputs(outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        call, saved = ctx.call, ctx.saved_tensors
        count = len(call.tensors)
        tensors = saved[:count]
        if torch.is_grad_enabled() or _C.tangent_flows(tensors):
            residuals = call.forward(tensors)[1]  # so that they are differentiated too
        else:
            residuals = ctx.residuals.filled(saved[count:])
        return None, *call.backward(tensors, residuals, cotangents)
