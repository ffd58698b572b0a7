"""Taylor-mode differentiation: ``jet``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._arguments import check_differentiable, check_outputs
from functorch_ext._describing import kind_of, structure_of
from functorch_ext._pytree import flatten, unflatten
from functorch_ext._taylor import nested
from functorch_ext._taylor.carrier import NotPropagated, Taylor, series_of
from functorch_ext._taylor.series import Expansion, Series


def jet(func: Callable[..., Any], primals: Any, series: Any) -> tuple[Any, Any]:
    """Taylor mode: the derivatives of ``func`` along a curve, up to any order, in one evaluation.

    ``series`` holds the derivatives x1, x2, ... of the curve ``x0 + x1 t + x2 t^2 / 2! + ...``, and
    the result those of ``func`` on it, as JAX's ``jet`` has them. Each operator computes all orders
    at once by the rules for series, which costs the square of the order where nested forward mode
    costs two to its power. An operator without a rule is differentiated by nested forward mode
    alone; a function that isn't made of operators on values (it writes in place, or applies a
    transform) as a whole, in which case it is called once more.

    Args:
        func: Takes the primals, and returns a tensor or a container of tensors.
        primals: A tuple of the arguments: floating-point or complex tensors, or containers of such.
        series: For each of the primals the list of its derivatives, each shaped as the primal. All
            lists are equally long: their length is the order.

    Returns:
        ``(output, derivatives)``: the output, and for each of its tensors, in the output's place,
        the list of its derivatives.

    Raises:
        RuntimeError: a primal can't be differentiated by, or the output holds something else than
            tensors.
        ValueError: ``series`` doesn't fit the primals.

    Example::

        >>> x = torch.tensor(2.0)
        >>> along_x = [torch.tensor(1.0), torch.tensor(0.0), torch.tensor(0.0)]
        >>> functorch_ext.jet(lambda x: x**3, (x,), (along_x,))
        (tensor(8.), [tensor(12.), tensor(12.), tensor(6.)])

    Source: A. Griewank and A. Walther, "Evaluating derivatives", 2008, chapter 13; J. Bettencourt
    et al., "Taylor-mode automatic differentiation for higher-order derivatives in JAX", 2019.
    """
    leaves, structure = flatten(tuple(primals))
    check_differentiable("jet", "primals", leaves)
    check_plain(leaves)
    rows = _rows(leaves, structure, primals, series)
    expansion = Expansion(len(rows[0]) - 1)
    carriers = lambda: unflatten(structure, [Taylor(expansion, row) for row in rows])

    # Custom functions are caught while a level runs.
    def propagated(_: _C.Level) -> Any:
        try:
            return func(*carriers())
        except NotPropagated:
            return nested.propagate(expansion, func, carriers(), {})

    outputs = _C.call_on_plane_of(tuple(leaves), _C.run_basis, propagated, 1)
    values, derivatives = [], []
    for leaf in check_outputs("jet", outputs):
        value, *others = series_of(leaf, expansion)
        assert value is not None
        values.append(value)
        derivatives.append([torch.zeros_like(value) if x is None else x for x in others])
    output_structure = flatten(outputs)[1]
    return unflatten(output_structure, values), unflatten(output_structure, derivatives)


def check_plain(leaves: list[Tensor]) -> None:
    """Leaves series of a transform around to forward mode of the whole function."""
    if any(type(leaf) is Taylor for leaf in leaves):
        raise NotPropagated("a transform of a series")


def _rows(leaves: list[Tensor], structure: Any, primals: Any, series: Any) -> list[Series]:
    """The series of each leaf, the value first."""
    if not isinstance(series, tuple | list) or len(series) != len(primals):
        raise ValueError(
            "functorch_ext.jet: expected series to be a tuple with a list of derivatives for each "
            f"of the {len(primals)} primals, but got {kind_of(series)}."
        )
    orders = [len(each) if isinstance(each, tuple | list) else None for each in series]
    if None in orders or len(set(orders)) != 1 or not orders[0]:
        raise ValueError(
            "functorch_ext.jet: expected series to hold a list of derivatives for each primal, all "
            f"of the same length of at least 1, but got {[kind_of(each) for each in series]}."
        )
    rows: list[Series] = [[leaf] for leaf in leaves]
    for k in range(orders[0]):
        derivatives, found = flatten(tuple(each[k] for each in series))
        if found != structure:
            raise ValueError(
                f"functorch_ext.jet: expected derivative {k + 1} in series to have the structure "
                f"of the primals, {structure_of(structure)}, but got {structure_of(found)}."
            )
        for row, leaf, each in zip(rows, leaves, derivatives, strict=True):
            if not isinstance(each, Tensor) or (each.shape, each.dtype) != (leaf.shape, leaf.dtype):
                raise ValueError(
                    f"functorch_ext.jet: expected derivative {k + 1} in series to have the shape "
                    f"and dtype of its primal, {tuple(leaf.shape)} and {leaf.dtype}, but got "
                    f"{_described(each)}."
                )
            row.append(each)
    return rows


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} and {value.dtype}"
    return kind_of(value)
