"""The table of rules: families of operators, and the names of those that belong to them."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from functorch_ext._taylor import composites, nested, towers
from functorch_ext._taylor.carrier import (
    Rule,
    Taylor,
    any_carriers,
    fitted,
    primals,
    series_of,
)
from functorch_ext._taylor.series import Expansion, Series, leibniz

# Linear in the first argument.
LINEAR = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d avg_pool2d avg_pool3d
    broadcast_to chunk clone conj contiguous cumsum diag diag_embed diagonal double
    expand expand_as fft fft2 fftn flatten flip float fliplr flipud gather getitem half hsplit ifft
    imag index_select irfft masked_select mean mH moveaxis movedim mT narrow neg negative
    permute pixel_shuffle positive real repeat repeat_interleave reshape reshape_as rfft roll rot90
    select split split_with_sizes squeeze sum swapaxes swapdims t T H take take_along_dim
    tensor_split tile to trace transpose tril triu type_as unbind unflatten unfold unsqueeze
    view view_as vsplit bfloat16 ravel
"""

# Linear in each of the arguments at these positions.
MULTILINEAR = {
    (0, 1): "bmm cross dot inner kron matmul mm mul multiply mv outer tensordot vdot",
    (1, 2): "einsum",
}

# Linear in two arguments, with a third one, the bias, added.
AFFINE = """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear
"""

# Linear in all tensors together.
JOINT = "block_diag cat column_stack concat concatenate dstack hstack stack vstack"

# Depend on the value alone: numbers, properties, and what has no derivative anywhere.
CONSTANT = """
    allclose argmax argmin argsort ceil count_nonzero detach device dim dim_order dtype element_size
    empty_like eq equal floor full_like ge get_device greater greater_equal gt is_complex
    is_contiguous is_cuda is_floating_point is_meta is_mkldnn is_nested is_quantized is_sparse
    is_sparse_csr isclose isfinite isinf isnan item itemsize layout le less less_equal logical_and
    logical_not logical_or logical_xor lt names ndim ndimension ne nelement new_empty new_full
    new_ones new_tensor new_zeros not_equal numel ones_like rand_like randint_like randn_like
    requires_grad round searchsorted shape sign signbit size storage_offset stride tolist trunc
    zeros_like long int bool is_same_size is_neg is_conj is_inference
    __bool__ __float__ __int__ __index__ __len__ __repr__ __format__ __contains__ __eq__ __ne__
    __lt__ __le__ __gt__ __ge__
"""

_NAMESPACES = (
    torch,
    Tensor,
    F,
    torch.special,
    torch.linalg,
    torch.fft,
    torch._C._VariableFunctions,
    torch._C.TensorBase,
    torch._C._nn,
)


def linear(
    expansion: Expansion, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Applies the operator to each derivative."""
    x, *others = args
    if type(x) is not Taylor or "out" in kwargs:
        return NotImplemented
    if any_carriers(others) or any_carriers(kwargs.values()):
        return NotImplemented
    return _mapped(expansion, x.series, lambda each: func(each, *others, **kwargs))


def _mapped(expansion: Expansion, series: Series, apply: Callable[[Tensor], Any]) -> Any:
    results: list[Any] = [None if each is None else apply(each) for each in series]
    first = results[0]
    if isinstance(first, Tensor):
        has_derivative = first.is_floating_point() or first.is_complex()
        return Taylor(expansion, results) if has_derivative else first
    parts = [[None] * len(first) if each is None else each for each in results]
    return type(first)([Taylor(expansion, list(column)) for column in zip(*parts, strict=True)])


def multilinear(positions: tuple[int, ...]) -> Rule:
    """Of the arguments at two positions."""

    def rule(
        expansion: Expansion,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        held = [i for i, arg in enumerate(args) if type(arg) is Taylor]
        if not held or "out" in kwargs or any(i not in positions for i in held):
            return NotImplemented
        if any_carriers(x for x in args if type(x) is not Taylor) or any_carriers(kwargs.values()):
            return NotImplemented

        def call(*values: Any) -> Any:
            filled = list(args)
            for i, value in zip(held, values, strict=True):
                filled[i] = value
            return func(*filled, **kwargs)

        if len(held) == 1:
            return _mapped(expansion, args[held[0]].series, call)
        a, b = (args[i] for i in held)
        if a is b and func in _PRODUCTS:
            return towers.power(expansion, torch.pow, (a, 2), {})
        return Taylor(expansion, leibniz(expansion, call, a.series, b.series))

    return rule


def affine(
    expansion: Expansion, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A bilinear operator with a bias, which derivatives don't have."""
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    if type(bias) is Taylor or "weight" in kwargs or "input" in kwargs:
        return NotImplemented
    derivatives = (*args[:2], None, *args[3:]) if len(args) > 2 else args
    named = {key: value for key, value in kwargs.items() if key != "bias"}
    if bias is None or type(args[1]) is Taylor or type(args[0]) is not Taylor:
        result = _BILINEAR(expansion, func, derivatives, named)
        if result is not NotImplemented and bias is not None:
            # The value with its bias in one operator.
            result.series[0] = func(*primals(args), **kwargs)
        return result
    value, *rest = args[0].series
    series = [None if x is None else func(x, *derivatives[1:], **named) for x in rest]
    return Taylor(expansion, [func(value, *args[1:], **kwargs), *series])


def joint(
    expansion: Expansion, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Applies the operator to all derivatives of one order."""
    first, *others = args
    tensors = first if isinstance(first, list | tuple) else None
    if tensors is None or "out" in kwargs:
        return NotImplemented
    if any_carriers(others) or any_carriers(kwargs.values()):
        return NotImplemented
    rows = [series_of(x, expansion) for x in tensors]
    value = func([row[0] for row in rows], *others, **kwargs)
    series: Series = [value]
    for k in range(1, expansion.order + 1):
        if all(row[k] is None for row in rows):
            series.append(None)
            continue
        parts = [torch.zeros_like(row[0]) if row[k] is None else row[k] for row in rows]
        series.append(func(parts, *others, **kwargs))
    return fitted(expansion, series)


def constant(
    expansion: Expansion, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Applies the operator to the value."""
    if "out" in kwargs:
        return NotImplemented
    if len(args) == 1 and type(args[0]) is Taylor and not kwargs:
        return func(args[0].series[0])
    args, kwargs = primals((args, kwargs))
    return func(*args, **kwargs)


def composite(function: Callable[..., Any]) -> Rule:
    """Of an operator that is written in others."""

    def rule(
        expansion: Expansion,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        return NotImplemented if "out" in kwargs else function(*args, **kwargs)

    return rule


_BILINEAR = multilinear((0, 1))
_PRODUCTS = {torch.mul, Tensor.mul, Tensor.__mul__, torch.multiply, Tensor.multiply}


def _functions(name: str) -> Iterator[Any]:
    """The functions, methods and properties of that name."""
    for space in _NAMESPACES:
        found = getattr(space, name, None)
        if found is None:
            continue
        if isinstance(found, property) or type(found).__name__ == "getset_descriptor":
            yield found.__get__
        elif callable(found):
            yield found


def install() -> None:
    """Fills the table."""
    table = Taylor.rules

    def add(name: str, rule: Rule) -> None:
        for function in (*_functions(name), *_functions(f"__{name}__")):
            table[function] = rule

    families: list[tuple[str, Rule]] = [
        (LINEAR, linear),
        (AFFINE, affine),
        (JOINT, joint),
        (CONSTANT, constant),
        ("pow", towers.power),
        *((names, multilinear(positions)) for positions, names in MULTILINEAR.items()),
    ]
    for names, rule in families:
        for name in names.split():
            add(name, rule)
    for name in towers.POLYNOMIALS:
        add(name, towers.by_polynomial(name))
    for name in towers.DERIVATIVES:
        add(name, towers.by_derivative(name))
    for name in towers.SLOPES:
        add(name, towers.by_slope(name))
    for name, function in composites.COMPOSITES.items():
        add(name, composite(function))
    for name, sum_rule in composites.SUMS.items():
        add(name, sum_rule)
    Taylor.otherwise = staticmethod(nested.otherwise)
