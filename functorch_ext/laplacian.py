"""Laplacians by forward propagation: ``laplacian``."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._arguments import (
    Argnums,
    check_differentiable,
    check_outputs,
    replaced,
    selected,
)
from functorch_ext._basis import each_chunk
from functorch_ext._chunk_sizes import ChunkSize, checked_chunk_size
from functorch_ext._dynamo.entry import EAGER
from functorch_ext._pytree import flatten, leaves_of, unflatten
from functorch_ext._taylor.carrier import NotPropagated, Taylor, primals, series_of
from functorch_ext._taylor.series import CollapsedExpansion
from functorch_ext.diagonals import Seconds, second_derivatives
from functorch_ext.taylor import check_plain

# Directions as rows, split into the shapes of the inputs, and the weight of each.
_Directions = tuple[list[Tensor], Tensor | None]


def laplacian(
    func: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    weights: Tensor | None = None,
    chunk_size: ChunkSize = None,
) -> Callable[..., Any]:
    """The Laplacian: the sum of the second derivatives along all elements of the input.

    The trace of the Hessian in one evaluation, without the Hessian: each operator y(x) passes on
    its value, a first derivative for each element, and one second derivative, already summed::

        y_i = y'(x) x_i
        L y = y'(x) L x + sum_i y''(x) x_i x_i

    An operator without a rule for that is differentiated by nested forward mode alone; a function
    that isn't made of operators on values (it writes in place, or applies a transform) as a whole,
    in which case it is called once more.

    Args:
        func: Returns a tensor or a container of tensors.
        argnums: The positional argument to differentiate by, or a tuple of several, whose
            Laplacians are added.
        weights: For n elements in all, a tensor of shape (n,) that weights their second
            derivatives, or a matrix of shape (n, n), which weights the mixed ones too:
            ``sum_ij weights_ij d^2 func / dx_i dx_j``. It is split into its eigenvectors.
        chunk_size: Take this many elements at a time, to bound memory; all at once if ``None``.
            Or how much memory to take, as for :func:`vmap`.

    Returns:
        A function of the arguments of ``func`` that returns tensors shaped as the output.

    Raises:
        RuntimeError: as for :func:`hessian_diag`.
        ValueError: as for :func:`hessian_diag`, or the weights have another shape, or are complex.

    Example::

        >>> harmonic = lambda x: x[0] ** 2 - x[1] ** 2
        >>> laplacian(harmonic)(torch.tensor([1.0, 2.0]))
        tensor(0.)
        >>> laplacian(harmonic, weights=torch.tensor([1.0, 3.0]))(torch.tensor([1.0, 2.0]))
        tensor(-4.)
        >>> vmap(laplacian(lambda x: (x**3).sum()))(torch.ones(3, 2))
        tensor([12., 12., 12.])

    Source: R. Li et al., "A computational framework for neural network-based variational Monte
    Carlo with forward Laplacian", arXiv 2307.08214; F. Dangel et al., "Collapsing Taylor mode
    automatic differentiation", arXiv 2505.13644.
    """
    chunking = checked_chunk_size("laplacian", chunk_size)

    @functools.wraps(func)
    def trace(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = flatten(selected("laplacian", argnums, args))
        check_differentiable("laplacian", "the argument at argnums", leaves)
        check_plain(leaves)
        directions = _directions(leaves, weights)
        evaluate = lambda point: func(*replaced(argnums, args, point), **kwargs)

        def collapsed(start: int, count: int) -> Seconds:
            basis, scales = directions(start, count)

            def body(level: _C.Level) -> Seconds:
                expansion = CollapsedExpansion(
                    2, level, None if scales is None else level.wrap(scales, 0)
                )
                carriers = [
                    Taylor(expansion, [x, level.wrap(rows, 0), None])
                    for x, rows in zip(leaves, basis, strict=True)
                ]
                outputs = evaluate(unflatten(structure, carriers))
                check_outputs("laplacian", primals(outputs))
                series = [series_of(leaf, expansion) for leaf in leaves_of(outputs)]
                # A sum over no directions is 0, whatever a derivative is multiplied by.
                last = [
                    torch.zeros_like(x[0]) if not count or x[2] is None else x[2] for x in series
                ]
                return [_same_for_all(level, x) for x in last], flatten(outputs)[1]

            return _C.run_basis(body, count)

        def nested(start: int, count: int) -> Seconds:
            basis, scales = directions(start, count)
            second = second_derivatives(evaluate, leaves, structure, can_write=bool(EAGER))
            outputs, output_structure = second(basis)
            if scales is not None:
                outputs = [each * scales for each in outputs]
            return [each.sum(-1) for each in outputs], output_structure

        def along(chunk: Callable[[int, int], Seconds]) -> Any:
            chunks = each_chunk(chunk, leaves, chunking)
            columns = zip(*(outputs for outputs, _ in chunks), strict=True)
            return unflatten(chunks[0][1], [functools.reduce(torch.add, x) for x in columns])

        if not EAGER:
            return along(nested)
        try:
            return _C.call_on_plane_of(tuple(leaves), along, collapsed)
        except NotPropagated:
            return along(nested)

    return trace


def _same_for_all(level: _C.Level, tensor: Tensor) -> Tensor:
    value, dim = level.unwrap(tensor)
    assert dim is None, "a sum over the directions has none"
    return value


def _directions(leaves: list[Tensor], weights: Tensor | None) -> Callable[[int, int], _Directions]:
    """What gives the directions ``start`` to ``start + count``."""
    if weights is None:
        return lambda start, count: (_C.standard_basis(leaves, start, count), None)
    sizes = [leaf.numel() for leaf in leaves]
    total = sum(sizes)
    if not isinstance(weights, Tensor) or weights.shape not in ((total,), (total, total)):
        got = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise ValueError(
            f"functorch_ext.laplacian: expected weights of shape ({total},) or ({total}, {total}) "
            f"for {total} elements in all, but got {got}."
        )
    if weights.is_complex():
        raise ValueError(
            f"functorch_ext.laplacian: expected real weights, but got {weights.dtype}. Take real "
            "and imaginary parts apart: the Laplacian is linear in them."
        )
    if not weights.is_floating_point():
        weights = weights.to(torch.promote_types(weights.dtype, leaves[0].dtype).to_real())
    if weights.dim() == 1:
        scales = weights
        return lambda start, count: (
            _C.standard_basis(leaves, start, count),
            scales.narrow(0, start, count),
        )
    # Mixed derivatives are symmetric, so this part of the matrix is all that counts.
    scales, vectors = torch.linalg.eigh((weights + weights.mT) / 2)

    def rows(start: int, count: int) -> _Directions:
        parts = vectors.mT.narrow(0, start, count).split(sizes, 1)
        basis = [
            x.reshape(count, *leaf.shape).to(leaf.dtype)
            for x, leaf in zip(parts, leaves, strict=True)
        ]
        return basis, scales.narrow(0, start, count)

    return rows
