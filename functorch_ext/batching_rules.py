"""Batching rules in Python, for operators of one's own."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch._library.custom_ops import OPDEFS, CustomOpDef

from functorch_ext import _C
from functorch_ext._describing import kind_of


class BatchInfo(NamedTuple):
    """What a batching rule is told of the ``vmap`` it computes for."""

    batch_size: int
    randomness: str  # "error", "same" or "different"


# A rule takes (info, in_dims, *args, **kwargs) and returns (output, out_dims).
BatchingRule = Callable[..., tuple[Any, Any]]

_RANDOMNESS = {
    _C.Randomness.ERROR: "error",
    _C.Randomness.SAME: "same",
    _C.Randomness.DIFFERENT: "different",
}

_compiled = {name for name, _, has_rule in _C.registered_operators() if has_rule}
_rules: dict[tuple[str, str], BatchingRule] = {}


def register_batching_rule(op: Any, rule: BatchingRule | None = None) -> Any:
    """Says how ``vmap`` computes an operator for all samples at once, instead of in a loop.

    Args:
        op: the operator: what ``torch.library.custom_op`` returned, a member of ``torch.ops``
            (``torch.ops.my_library.my_op``), or its name (``"my_library::my_op"``).
        rule: ``rule(info, in_dims, *args, **kwargs)`` gets the operator's arguments with each
            tensor as the stack of all samples. ``in_dims`` has one entry for each positional
            argument: the dimension with the samples, or None for what is the same for all of them
            (a list of such for a list of tensors). ``info.batch_size`` is the number of samples,
            ``info.randomness`` what was given to ``vmap``. The rule returns ``(output, out_dims)``:
            the operator's result for all samples, and the dimension that holds them (None: the
            same for all), or a tuple of each where the operator returns several.

            Functions written for ``torch.library.register_vmap`` have the same form; those of a
            ``torch.library.custom_op`` are found without being registered here.

    Returns:
        ``rule``; or a decorator if ``rule`` was left out.

    Raises:
        ValueError: the operator has a rule already that is compiled in, or does not exist.
        TypeError: ``op`` is not an operator, or ``rule`` can't be called.

    Example:
        >>> import torch, functorch_ext
        >>> @torch.library.custom_op("my_library::times", mutates_args=())
        ... def times(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        ...     return x * y
        >>> @functorch_ext.register_batching_rule(times)
        ... def times_of_all_samples(info, in_dims, x, y):
        ...     x, y = (t if d is None else t.movedim(d, -1) for t, d in zip((x, y), in_dims))
        ...     return times(x, y), -1
        >>> functorch_ext.vmap(times, in_dims=(0, None))(torch.arange(3), torch.tensor(10))
        tensor([ 0, 10, 20])
    """
    if rule is None:
        return lambda function: register_batching_rule(op, function)
    if not callable(rule):
        raise TypeError(
            f"register_batching_rule: rule must be a function of (info, in_dims, *args), "
            f"got {type(rule).__name__}."
        )
    name, overload = _operator_name(op)
    if f"{name}.{overload}".removesuffix(".") in _compiled:
        raise ValueError(
            f"register_batching_rule: {name}.{overload or 'default'} has a batching rule already, "
            f"compiled into functorch_ext."
        )
    _rules[name, overload] = rule
    return rule


def _operator_name(op: Any) -> tuple[str, str]:
    """The name and the overload name of an operator given in any form."""
    if isinstance(op, CustomOpDef):
        op = op._opoverload
    if isinstance(op, str):
        namespace, _, rest = op.partition("::")
        packet, _, overload = rest.partition(".")
        try:
            op = getattr(getattr(torch.ops, namespace), packet)
            op = getattr(op, overload) if overload else op
        except AttributeError:
            raise ValueError(
                f"register_batching_rule: there is no operator called {op!r}. Define it first; its "
                f"name has the form 'library::operator'."
            ) from None
    if isinstance(op, torch._ops.OpOverloadPacket):
        if len(op.overloads()) > 1:
            raise ValueError(
                f"register_batching_rule: {op} has the overloads {', '.join(op.overloads())}; "
                f"give one of them, for example {op}.{op.overloads()[0]}."
            )
        op = getattr(op, op.overloads()[0])
    if not isinstance(op, torch._ops.OpOverload):
        raise TypeError(
            f"register_batching_rule: op must be an operator (of torch.library.custom_op or "
            f"torch.ops) or its name, got {type(op).__name__}."
        )
    return op._schema.name, op._schema.overload_name


def find_rule(name: str, overload: str) -> BatchingRule | None:
    """The rule for an operator: the engine asks before it loops over the samples."""
    rule = _rules.get((name, overload))
    if rule is None:
        definition = OPDEFS.get(name)
        rule = definition._vmap_fn if definition is not None else None
    return rule


def apply_rule(
    rule: BatchingRule,
    name: str,
    output_count: int,
    batch_size: int,
    randomness: _C.Randomness,
    in_dims: list[Any],
    args: list[Any],
    kwargs: dict[str, Any],
) -> list[Any]:
    """Runs a rule: a (value, out_dim) for each output, or a list of them for a list."""
    info = BatchInfo(batch_size, _RANDOMNESS[randomness])
    returned = rule(info, tuple(in_dims), *args, **kwargs)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(
            f"The batching rule of {name} must return (output, out_dims), got "
            f"{_describe(returned)}."
        )
    if output_count == 0:
        return []
    outputs, out_dims = returned
    if output_count == 1:
        outputs, out_dims = (outputs,), (out_dims,)
    for what, found in (("outputs", outputs), ("out_dims", out_dims)):
        if not isinstance(found, Sequence) or len(found) != output_count:
            raise TypeError(
                f"The batching rule of {name} must return {output_count} {what}, got "
                f"{_describe(found)}."
            )
    return [_checked(name, *pair, batch_size) for pair in zip(outputs, out_dims, strict=True)]


def _checked(name: str, output: Any, out_dim: Any, batch_size: int) -> Any:
    """One output and its dimension, counted from the front; or a list of such pairs."""
    if isinstance(output, list | tuple):
        dims = out_dim if isinstance(out_dim, list | tuple) else [out_dim] * len(output)
        if len(dims) != len(output):
            raise TypeError(
                f"The batching rule of {name} returned {len(output)} tensors and {len(dims)} "
                f"out_dims for them."
            )
        pairs = zip(output, dims, strict=True)
        return [_checked(name, *pair, batch_size) for pair in pairs]
    if not isinstance(output, torch.Tensor):
        raise TypeError(f"The batching rule of {name} must return tensors, got {kind_of(output)}.")
    if out_dim is None:
        return output, None
    if not isinstance(out_dim, int) or not -output.dim() <= out_dim < output.dim():
        raise ValueError(
            f"The batching rule of {name} returned out_dim {out_dim!r} for a tensor of shape "
            f"{tuple(output.shape)}; it must be one of its dimensions, or None."
        )
    if output.shape[out_dim] != batch_size:
        raise ValueError(
            f"The batching rule of {name} returned a tensor of shape {tuple(output.shape)} with "
            f"out_dim {out_dim}, but there are {batch_size} samples."
        )
    return output, out_dim % output.dim()


def _describe(value: Any) -> str:
    if isinstance(value, Sequence):
        return f"{kind_of(value)} of length {len(value)}"
    return kind_of(value)
