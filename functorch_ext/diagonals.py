"""Diagonals and traces without the matrix: ``hessian_diag``, and ``trace_estimate`` for matrices of
which only products are known."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._arguments import Argnums, check_differentiable, is_int, replaced, selected
from functorch_ext._basis import each_chunk, split_columns
from functorch_ext._chunk_sizes import ChunkSize, checked_chunk_size
from functorch_ext._pytree import flatten, unflatten
from functorch_ext.forward import jvp
from functorch_ext.vmap import vmap

# Second derivatives along the columns of a chunk, one output after the other, with the columns in
# the last dimension; and the structure of the outputs.
Seconds = tuple[list[Tensor], Any]


def hessian_diag(
    func: Callable[..., Any], argnums: Argnums = 0, *, chunk_size: ChunkSize = None
) -> Callable[..., Any]:
    """The diagonal of the Hessian: the second derivative along each element of the input.

    Forward mode twice along the same direction, for all elements together, so memory grows with the
    number of elements and not with its square::

        diag_i = d^2 func(x + t e_i) / dt^2 at t = 0

    Args:
        func: Returns a tensor or a container of tensors; usually a number.
        argnums: The positional argument to differentiate by, or a tuple of several.
        chunk_size: Compute this many elements at a time, to bound memory; all at once if ``None``.
            Or how much memory to take, as for :func:`vmap`.

    Returns:
        A function of the arguments of ``func`` that returns, for each output, the second
        derivatives by each input: a tensor of shape ``output.shape + input.shape``, in containers
        as :func:`jacfwd`'s.

    Raises:
        RuntimeError: ``argnums`` is out of range, an argument can't be differentiated by, or the
            output holds something else than tensors.
        ValueError: ``chunk_size`` isn't positive.

    Example::

        >>> hessian_diag(lambda x: (x**3).sum() + x[0] * x[1])(torch.tensor([1.0, 2.0]))
        tensor([ 6., 12.])
    """
    chunking = checked_chunk_size("hessian_diag", chunk_size)

    @functools.wraps(func)
    def diagonal(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = flatten(selected("hessian_diag", argnums, args))
        check_differentiable("hessian_diag", "the argument at argnums", leaves)
        evaluate = lambda point: func(*replaced(argnums, args, point), **kwargs)
        second = second_derivatives(evaluate, leaves, structure)
        columns_of = lambda start, count: second(_C.standard_basis(leaves, start, count))
        chunks = each_chunk(columns_of, leaves, chunking)
        columns = [outputs for outputs, _ in chunks]
        # There may be no column to select.
        without_columns = [each.narrow(-1, 0, 0).sum(-1) for each in columns[0]]
        parts = split_columns(columns, without_columns, leaves)
        return unflatten(chunks[0][1], [unflatten(structure, part) for part in parts])

    return diagonal


def second_derivatives(
    evaluate: Callable[[Any], Any], leaves: list[Tensor], structure: Any, can_write: bool = False
) -> Callable[[list[Tensor]], Seconds]:
    """What computes the second derivatives along directions, which are rows.

    Where the function may write derivatives into what it computes from the point, each direction
    needs a point of its own.
    """

    def along(point: list[Tensor], direction: list[Tensor]) -> Any:
        tangents = (unflatten(structure, direction),)
        slope = lambda point: jvp(evaluate, (point,), tangents)[1]
        return jvp(slope, (unflatten(structure, point),), tangents)[1]

    mapped = vmap(along, (0 if can_write else None, 0), out_dims=-1, randomness="same")

    def seconds(rows: list[Tensor]) -> Seconds:
        if not can_write:
            return flatten(mapped(leaves, rows))
        points = [x.expand(row.shape) for x, row in zip(leaves, rows, strict=True)]
        # Where points differ between samples of a vmap around, so must what is written to tangents.
        chosen = torch.ones((), dtype=torch.bool, device=leaves[0].device)
        rows = [torch.where(chosen, *pair) for pair in zip(rows, points, strict=True)]
        return flatten(mapped(points, rows))

    return seconds


class TraceEstimate(NamedTuple):
    """An estimate of a trace, and the variance of that estimate."""

    trace: Tensor
    variance: Tensor


def trace_estimate(
    product: Callable[[Any], Any],
    like: Any,
    samples: int,
    *,
    deflate: int = 0,
    generator: torch.Generator | None = None,
) -> TraceEstimate:
    """An unbiased estimate of the trace of a matrix, from its products with random vectors.

    Hutchinson's estimate with vectors z of random signs, and, with ``deflate``, Hutch++: the part
    of the matrix that lies in the range of ``deflate`` of its own products, with the orthonormal
    basis Q, is summed exactly, and only the rest is estimated::

        tr A = E[z^T A z]
        tr A = tr(Q^T A Q) + E[z^T P A P z],    P = I - Q Q^T

    Args:
        product: The matrix times a vector, such as ``hvp(f).at(x)``; ``vmap`` has to take it.
        like: A tensor or a container of tensors that is shaped as the vector.
        samples: The number of random vectors, at least 2.
        deflate: The number of products that Q is made of, besides as many more for the exact part.
        generator: Where random numbers come from; PyTorch's default one if ``None``.

    Returns:
        ``(trace, variance)``: the estimate, and the variance of it as the samples show it.

    Raises:
        RuntimeError: ``like`` holds tensors that aren't floating-point or complex.
        ValueError: fewer than 2 samples, a negative ``deflate``, or products of other shapes than
            ``like``.

    Example::

        >>> product = hvp(lambda x: (x**3).sum()).at(torch.tensor([1.0, 2.0]))  # diag(6, 12)
        >>> trace_estimate(product, torch.zeros(2), samples=2)
        TraceEstimate(trace=tensor(18.), variance=tensor(0.))

    Source: M. Hutchinson, "A stochastic estimator of the trace of the influence matrix for
    Laplacian smoothing splines", 1990; R. Meyer et al., "Hutch++", arXiv 2010.09649.
    """
    if not (is_int(samples) and is_int(deflate)) or samples < 2 or deflate < 0:
        raise ValueError(
            "functorch_ext.trace_estimate: expected whole numbers, samples >= 2 and deflate >= 0, "
            f"but got samples={samples!r} and deflate={deflate!r}."
        )
    leaves, structure = flatten(like)
    check_differentiable("trace_estimate", "like", leaves)
    sizes = [leaf.numel() for leaf in leaves]
    dtype = functools.reduce(torch.promote_types, [leaf.dtype for leaf in leaves])

    def times(rows: Tensor) -> Tensor:
        """The products with the rows, as rows."""
        pieces = rows.split(sizes, 1)
        split = [
            x.reshape(len(rows), *y.shape).to(y.dtype) for x, y in zip(pieces, leaves, strict=True)
        ]
        products, _ = flatten(vmap(product)(unflatten(structure, split)))
        shapes = [[tuple(x.shape) for x in leaves], [tuple(x.shape[1:]) for x in products]]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "functorch_ext.trace_estimate: expected product to return tensors of the shapes "
                f"of like, {shapes[0]}, as a square matrix does, but got {shapes[1]}."
            )
        # Not -1: it can't be inferred where there are no elements.
        flat = [x.reshape(len(rows), n) for x, n in zip(products, sizes, strict=True)]
        return torch.cat(flat, 1)

    def signs(count: int) -> Tensor:
        shape = (count, sum(sizes))
        drawn = torch.randint(2, shape, generator=generator, device=leaves[0].device)
        return drawn.to(dtype) * 2 - 1

    exact = leaves[0].new_zeros(())
    vectors = signs(samples)
    if deflate:
        images = times(signs(min(deflate, sum(sizes)))).mT
        precise = images.to(torch.promote_types(images.dtype, torch.float32))
        basis = torch.linalg.qr(precise)[0].to(images.dtype)
        exact = (basis.mH * times(basis.mT)).sum()
        vectors = vectors.to(basis.dtype)
        vectors = vectors - vectors @ basis.conj() @ basis.mT
    estimates = (vectors.conj() * times(vectors)).sum(1)
    return TraceEstimate(exact + estimates.mean(), estimates.var() / samples)
