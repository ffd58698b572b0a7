"""Operators that are written in others, and sums of two arguments that broadcast."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functorch_ext._taylor.carrier import Rule, Taylor, fitted, series_of
from functorch_ext._taylor.series import Expansion, Series, plus, times


def _sum(sign: float, is_reversed: bool = False) -> Rule:
    def rule(
        expansion: Expansion,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if len(args) != 2 or kwargs.keys() - {"alpha"} or type(kwargs.get("alpha")) is Taylor:
            return NotImplemented
        a, b = (series_of(x, expansion) for x in args)
        series: Series = [func(a[0], b[0], **kwargs)]
        factor = sign * kwargs.get("alpha", 1)
        for left, right in zip(a[1:], b[1:], strict=True):
            if is_reversed:
                left, right = right, left
            if left is not None and right is not None and factor in (1, -1):
                series.append(left + right if factor == 1 else left - right)
            else:
                series.append(plus(left, None if right is None else times(factor, right)))
        return fitted(expansion, series)

    return rule


SUMS: dict[str, Rule] = {
    "add": _sum(1),
    "radd": _sum(1),
    "rsub": _sum(-1, is_reversed=True),
    "sub": _sum(-1),
    "subtract": _sum(-1),
}


def where(
    expansion: Expansion, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The rule of ``where``, which chooses among derivatives as it does among values."""
    if len(args) != 3 or kwargs or type(args[0]) is Taylor or args[0].dtype != torch.bool:
        return NotImplemented
    condition = args[0]
    a, b = (series_of(x, expansion) for x in args[1:])
    series: Series = [torch.where(condition, a[0], b[0])]
    for left, right in zip(a[1:], b[1:], strict=True):
        if left is None and right is None:
            series.append(None)
        else:
            pair = [0.0 if each is None else each for each in (left, right)]
            series.append(torch.where(condition, *pair))
    return fitted(expansion, series)


SUMS["where"] = where


def _div(a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode is not None or type(b) is not Taylor:
        return _each(a, lambda x: torch.div(x, b, rounding_mode=rounding_mode), rounding_mode)
    return b.reciprocal() * a


def _each(x: Taylor, apply: Callable[[Tensor], Any], is_constant: Any) -> Any:
    """Of something linear, or of something whose derivative is zero."""
    value: Any = x.series[0]
    if is_constant:
        return apply(value)
    return fitted(x.expansion, [None if each is None else apply(each) for each in x.series])


def _gelu(x: Any, *, approximate: str = "none") -> Any:
    if approximate == "tanh":
        inner = (x + 0.044715 * x**3) * math.sqrt(2 / math.pi)
        return x * ((1 + inner.tanh()) / 2)
    return x * ((1 + (x * math.sqrt(0.5)).erf()) / 2)


def _softplus(x: Any, beta: float = 1, threshold: float = 20) -> Any:
    scaled = x * beta
    is_linear = scaled > threshold
    bounded = torch.where(is_linear, 0.0, scaled)
    return torch.where(is_linear, x, bounded.exp().log1p() / beta)


def _logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    value = x.series[0]
    if not value.numel():  # of no numbers: a constant
        return torch.logsumexp(value, dim, keepdim)
    largest = value.amax(dim, keepdim=True)
    largest = torch.where(largest.isfinite(), largest, 0.0)
    shifted = (x - largest).exp().sum(dim, keepdim=keepdim).log()
    return shifted + (largest if keepdim else largest.reshape(shifted.shape))


def _softmax(x: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    if dim is None or not isinstance(_stacklevel, int):
        return NotImplemented
    x = x if dtype is None else x.to(dtype)
    if not x.series[0].numel():
        return torch.softmax(x.series[0], dim)
    powers = (x - x.series[0].amax(dim, keepdim=True)).exp()
    return powers / powers.sum(dim, keepdim=True)


def _log_softmax(x: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    if dim is None or not isinstance(_stacklevel, int):
        return NotImplemented
    x = x if dtype is None else x.to(dtype)
    return x - _logsumexp(x, dim, keepdim=True)


def _layer_norm(
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    if type(input) is not Taylor:
        return NotImplemented
    dims = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(dims, keepdim=True)
    result = centred * ((centred * centred).mean(dims, keepdim=True) + eps).rsqrt()
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


def _mse_loss(input: Any, target: Any, *rest: Any, **options: Any) -> Any:
    reduction = options.pop("reduction", "mean")
    if rest or any(each is not None for each in options.values()):
        return NotImplemented
    squares = (input - target) ** 2
    return squares if reduction == "none" else getattr(squares, reduction)()


COMPOSITES: dict[str, Callable[..., Any]] = {
    "addmm": lambda c, a, b, *, beta=1, alpha=1: c * beta + (a @ b) * alpha,
    "baddbmm": lambda c, a, b, *, beta=1, alpha=1: c * beta + (a @ b) * alpha,
    "div": _div,
    "divide": _div,
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "log_softmax": _log_softmax,
    "logsigmoid": lambda x: -_softplus(-x, threshold=math.inf),
    "logsumexp": _logsumexp,
    "mse_loss": _mse_loss,
    "rdiv": lambda x, other: x.reciprocal() * other,
    "rmul": lambda x, other: x * other,
    "rtruediv": lambda x, other: x.reciprocal() * other,
    "silu": lambda x, inplace=False: NotImplemented if inplace else x * x.sigmoid(),
    "softmax": _softmax,
    "softplus": _softplus,
    "square": lambda x: x**2,
    "true_divide": _div,
    "truediv": _div,
}
