"""Divergences of vector fields: ``divergence``."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._arguments import Argnums, check_differentiable, replaced, selected
from functorch_ext._basis import each_chunk
from functorch_ext._chunk_sizes import ChunkSize, checked_chunk_size
from functorch_ext._dynamo.entry import EAGER, call_transform
from functorch_ext._pytree import flatten, unflatten
from functorch_ext.jacobian import push_columns


def divergence(
    func: Callable[..., Any], argnums: Argnums = 0, *, chunk_size: ChunkSize = None
) -> Callable[..., Any]:
    """The divergence of a vector field: the trace of its Jacobian.

    Forward mode along each element of the input, of which the same element of the output is kept::

        div func = sum_i d func(x)_i / dx_i

    For fields of many elements, an estimate takes fewer products:
    ``trace_estimate(lambda v: jvp(func, (x,), (v,))[1], x, samples)``.

    Args:
        func: Returns a tensor of the shape of the argument at ``argnums``, or a container of
            tensors like its.
        argnums: The positional argument to differentiate by, or a tuple of several, in which case
            ``func`` returns as many.
        chunk_size: Push this many elements at a time, to bound memory; all at once if ``None``. Or
            how much memory to take, as for :func:`vmap`.

    Returns:
        A function of the arguments of ``func`` that returns a number.

    Raises:
        RuntimeError: ``argnums`` is out of range, an argument can't be differentiated by, or the
            output's tensors have other shapes than the input's.
        ValueError: ``chunk_size`` isn't positive.

    Example::

        >>> swirl = lambda x: torch.stack([x[0] * x[1], x[0] - x[1]])
        >>> divergence(swirl)(torch.tensor([3.0, 2.0]))  # 2 - 1
        tensor(1.)
        >>> vmap(divergence(lambda x: x**2))(torch.ones(3, 2))
        tensor([4., 4., 4.])
    """
    chunking = checked_chunk_size("divergence", chunk_size)

    @functools.wraps(func)
    def of_point(*args: Any, **kwargs: Any) -> Any:
        if not EAGER:
            return call_transform("divergence", func, (argnums, chunk_size), args, kwargs)
        leaves, structure = flatten(selected("divergence", argnums, args))
        check_differentiable("divergence", "the argument at argnums", leaves)
        same = _C.Randomness.SAME

        def field(duals: list[Tensor]) -> Any:
            return func(*replaced(argnums, args, unflatten(structure, duals)), **kwargs)

        def share(start: int, count: int) -> Tensor:
            basis = _C.standard_basis(leaves, start, count)
            outputs, returned, columns, _ = push_columns(
                same, "divergence", field, leaves, basis, count, False
            )
            _check_alike((structure, leaves), (returned, outputs))
            return functools.reduce(torch.add, _diagonals(columns, leaves, start))

        return functools.reduce(torch.add, each_chunk(share, leaves, chunking))

    return of_point


def _diagonals(columns: list[Tensor], inputs: list[Tensor], start: int) -> list[Tensor]:
    """For each input, the sum of its diagonal's entries among the columns from ``start`` on."""
    sums = []
    first = 0
    for column, given in zip(columns, inputs, strict=True):
        matrix = column.reshape(given.numel(), column.shape[-1])
        sums.append(matrix.diagonal(first - start).sum())
        first += given.numel()
    return sums


def _check_alike(given: tuple[Any, list[Tensor]], returned: tuple[Any, list[Tensor]]) -> None:
    """Raises unless the output has the structure of the input, and its tensors those shapes."""
    if returned[0] != given[0]:
        raise RuntimeError(
            "functorch_ext.divergence: expected func to return a container like its input, "
            f"{given[0]}, but got {returned[0]}."
        )
    expected, got = ([tuple(x.shape) for x in tensors] for _, tensors in (given, returned))
    if expected != got:
        raise RuntimeError(
            "functorch_ext.divergence: expected func to return tensors of the shapes of its "
            f"input, {expected}, but got {got}."
        )
