"""Sparse matrices of derivatives, from as many products as their pattern needs.

Columns that share no row are pushed forward together, as one tangent: ``sparse_jacobian`` and
``sparse_hessian`` find out which entries can be other than zero, colour the columns (or rows), and
read the entries off the products.
"""

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from functorch_ext import _C
from functorch_ext._arguments import (
    Argnums,
    check_differentiable,
    outside_inference_mode,
    replaced,
    selected,
)
from functorch_ext._chunk_sizes import ChunkSize, checked_chunk_size
from functorch_ext._describing import kind_of
from functorch_ext._pytree import flatten, leaves_of, unflatten
from functorch_ext._sparsity.plan import ROWS, Plan
from functorch_ext.forward import jvp
from functorch_ext.jacobian import push_columns
from functorch_ext.reverse import gradient_function, vjp
from functorch_ext.vmap import vmap

_LAYOUTS = (torch.sparse_coo, torch.sparse_csr)


def sparse_jacobian(
    func: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    pattern: Tensor | None = None,
    layout: torch.layout = torch.sparse_coo,
    chunk_size: ChunkSize = None,
) -> "SparseDerivative":
    """The Jacobian as a sparse matrix, from as many products as its pattern needs.

    A banded Jacobian takes as many forward-mode products as the band is wide, whatever its size.
    Where rows need fewer, they are pulled back in reverse mode.

    The pattern is detected at the first call for each shape of arguments, from a trace of the
    operators, and holds for all values: ``func`` must do the same at each call. Detection never
    leaves out an entry, but may list some that are always zero; an operator that it has no rule for
    mixes all elements. The first result is compared with a product of the whole matrix.

    Args:
        func: Returns a tensor or a container of tensors. It can't decide by values of tensors what
            to compute, unless the pattern is given.
        argnums: The positional argument to differentiate by, or a tuple of several.
        pattern: Which entries may be other than zero, if it is known: a sparse tensor with an entry
            for each, or a dense tensor of bools.
        layout: ``torch.sparse_coo`` or ``torch.sparse_csr``.
        chunk_size: Push this many products at a time, to bound memory; all at once if ``None``.
            Or how much memory to take, as for :func:`vmap`.

    Returns:
        A function of the arguments of ``func`` that returns the matrix. Its rows are the elements
        of the output, its columns those of the input, all flattened and one after the other. It has
        the attributes ``values(*args)``, the entries alone, which every transform takes;
        ``indices(*args)``, a row and a column for each; and ``products(*args)``, the number of
        products.

    Raises:
        RuntimeError: ``func`` reads values while its pattern is detected, the matrix has entries
            outside of the pattern, or as for :func:`jacfwd`.
        ValueError: ``pattern`` has another shape than the matrix, or ``layout`` is another one.

    Example::

        >>> jacobian = sparse_jacobian(lambda x: x[1:] * x[:-1])
        >>> x = torch.tensor([1.0, 2.0, 3.0, 4.0])
        >>> jacobian(x).to_dense()
        tensor([[2., 1., 0., 0.],
                [0., 3., 2., 0.],
                [0., 0., 4., 3.]])
        >>> jacobian.products(x)
        2

    Source: A. Curtis, M. Powell, J. Reid, "On the estimation of sparse Jacobian matrices", 1974;
    A. Gebremedhin, F. Manne, A. Pothen, "What color is your Jacobian?", SIAM Review 47, 2005.
    """
    return SparseDerivative("sparse_jacobian", func, argnums, pattern, layout, chunk_size)


def sparse_hessian(
    func: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    pattern: Tensor | None = None,
    layout: torch.layout = torch.sparse_coo,
    chunk_size: ChunkSize = None,
) -> "SparseDerivative":
    """The Hessian as a sparse matrix, from as many Hessian-vector products as its pattern needs.

    Products are made in forward mode over reverse mode. Since the matrix is symmetric, one of each
    pair of entries has to stand by itself in a product, not both (a star colouring).

    Args:
        func: Returns a tensor without dimensions.
        argnums: As for :func:`sparse_jacobian`.
        pattern: As for :func:`sparse_jacobian`; entries are taken for their mirror images too.
        layout: As for :func:`sparse_jacobian`.
        chunk_size: As for :func:`sparse_jacobian`.

    Returns:
        As :func:`sparse_jacobian`; rows as well as columns are the elements of the input.

    Raises:
        RuntimeError: as for :func:`sparse_jacobian`, and as for :func:`grad`.
        ValueError: as for :func:`sparse_jacobian`.

    Example::

        >>> chain = lambda x: ((x[1:] - x[:-1]) ** 2).sum()
        >>> sparse_hessian(chain)(torch.zeros(4)).to_dense()
        tensor([[ 2., -2.,  0.,  0.],
                [-2.,  4., -2.,  0.],
                [ 0., -2.,  4., -2.],
                [ 0.,  0., -2.,  2.]])

    Source: A. Gebremedhin, A. Tarafdar, F. Manne, A. Pothen, "New acyclic and star coloring
    algorithms with application to computing Hessians", SIAM J. Sci. Comput. 29, 2007.
    """
    return SparseDerivative("sparse_hessian", func, argnums, pattern, layout, chunk_size)


class SparseDerivative:
    """A sparse matrix of derivatives, as a function of the point."""

    def __init__(
        self,
        transform: str,
        func: Callable[..., Any],
        argnums: Argnums,
        pattern: Tensor | None,
        layout: torch.layout,
        chunk_size: ChunkSize,
    ) -> None:
        chunking = checked_chunk_size(transform, chunk_size)
        if layout not in _LAYOUTS:
            raise ValueError(
                f"functorch_ext.{transform}: expected layout to be torch.sparse_coo or "
                f"torch.sparse_csr, but got {layout}."
            )
        self._transform, self._func, self._argnums = transform, func, argnums
        self._pattern, self._layout, self._chunking = pattern, layout, chunking
        self._plans: dict[Hashable, tuple[Plan, Callable[[], bool]]] = {}
        functools.update_wrapper(self, func, updated=())

    def __repr__(self) -> str:
        return f"<functorch_ext.{self._transform} of {self._func!r}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """The matrix at the point."""
        plan, values = self._computed(args, kwargs)
        if _C.level_of_tensors((values,)) is not None:
            raise RuntimeError(
                f"functorch_ext.{self._transform}: a sparse tensor can't be made inside of vmap. "
                "Use .values(*args) there, and .indices(*args) outside of it."
            )
        if self._layout is torch.sparse_csr:
            parts = plan.row_starts, plan.columns
            return torch.sparse_csr_tensor(*parts, values, plan.shape, check_invariants=False)
        return torch.sparse_coo_tensor(
            plan.indices, values, plan.shape, is_coalesced=True, check_invariants=False
        )

    def values(self, *args: Any, **kwargs: Any) -> Tensor:
        """The entries of the pattern, row by row."""
        return self._computed(args, kwargs)[1]

    def indices(self, *args: Any, **kwargs: Any) -> Tensor:
        """The rows and the columns of the entries, as a tensor of two rows."""
        return self._plan(args, kwargs).indices

    def products(self, *args: Any, **kwargs: Any) -> int:
        """How many products the matrix is made of."""
        return self._plan(args, kwargs).products

    def _computed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Plan, Tensor]:
        plan = self._plan(args, kwargs)
        if torch.is_inference_mode_enabled():
            return plan, outside_inference_mode(self._values, plan, args, kwargs)
        return plan, self._values(plan, args, kwargs)

    def _values(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        leaves, structure = flatten(selected(self._transform, self._argnums, args))
        func = self._differentiated(args, kwargs, structure)
        push = _push_forward if plan.by != ROWS else _pull_back
        multiply = functools.partial(push, self._transform, func, leaves)
        return plan.values(multiply, self._chunking)

    def _differentiated(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], structure: Any
    ) -> Callable[[list[Tensor]], list[Tensor]]:
        """The function of the point's leaves whose Jacobian is the matrix."""
        func, argnums = self._func, self._argnums
        if self._transform == "sparse_hessian":
            gradient = gradient_function(self._transform, func, argnums, False, False)
            func = lambda *args, **kwargs: gradient(args, kwargs)[0]
        return lambda leaves: leaves_of(
            func(*replaced(argnums, args, unflatten(structure, leaves)), **kwargs)
        )

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
        leaves, structure = (args, None) if _are_tensors(args, kwargs) else flatten((args, kwargs))
        key: Hashable = (structure, *map(_signature, leaves))
        try:
            made = self._plans.get(key)
        except TypeError as error:
            raise TypeError(
                f"functorch_ext.{self._transform}: expected arguments that are tensors, or values "
                f"that can be hashed, by which plans are known, but got: {error}. Close over "
                "others, or make tensors of them."
            ) from error
        if made is None or not made[1]():
            leaves, structure = flatten((args, kwargs))
            with _disable_current_modes():
                made = _C.run_outside_levels(self._make_plan, leaves, structure)
            self._plans[key] = made
        return made[0]

    def _make_plan(self, leaves: list[Any], structure: Any) -> tuple[Plan, Callable[[], bool]]:
        """From tensors like those of the arguments, without their values."""
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        tensors = [_stand_in(leaves[i]) for i in places]

        def arguments(tensors: Any) -> Any:
            given = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                given[place] = tensor
            return unflatten(structure, given)

        point = leaves_of(selected(self._transform, self._argnums, arguments(tensors)[0]))
        self._check_point(point)

        def product(*given: Tensor) -> list[Tensor]:
            args, kwargs = arguments(given[: len(tensors)])
            leaves, structure = flatten(selected(self._transform, self._argnums, args))
            func = self._differentiated(args, kwargs, structure)
            vectors = list(given[len(tensors) :])
            return jvp(func, (leaves,), (vectors,))[1]

        vectors = [torch.zeros_like(leaf) for leaf in point]
        rows, columns, shape, holds = self._entries(product, tensors, vectors)
        symmetric = self._transform == "sparse_hessian"
        if symmetric:
            keys = torch.cat([rows * shape[1] + columns, columns * shape[1] + rows]).unique()
            rows, columns = keys // max(shape[1], 1), keys % max(shape[1], 1)
        return Plan(rows, columns, shape, point[0], symmetric), holds

    def _entries(
        self, product: Callable[..., Any], points: list[Tensor], vectors: list[Tensor]
    ) -> tuple[Tensor, Tensor, tuple[int, int], Callable[[], bool]]:
        from functorch_ext._sparsity import detection  # PyTorch's tracer takes long to import

        columns = sum(vector.numel() for vector in vectors)
        if self._pattern is None:
            found = detection.detect(self._transform, product, points, vectors)
            return *found.entries(), (found.rows, columns), found.holds
        given = self._pattern
        if not isinstance(given, Tensor):
            raise TypeError(
                f"functorch_ext.{self._transform}: expected pattern to be a tensor, sparse or of "
                f"bools, but got {kind_of(given)}."
            )
        given = given.detach()
        if given.layout is torch.strided:
            indices = given.nonzero().T
        else:
            indices = given.to_sparse_coo().coalesce().indices()
        shape = tuple(given.shape)
        rows = columns if self._transform == "sparse_hessian" else None
        if len(shape) != 2 or shape[1] != columns or rows not in (None, shape[0]):
            raise ValueError(
                f"functorch_ext.{self._transform}: expected a pattern of {rows or 'any number of'} "
                f"rows and {columns} columns, but got one of shape {shape}."
            )
        return *indices.cpu(), shape, lambda: True

    def _check_point(self, point: list[Any]) -> None:
        check_differentiable(self._transform, "the argument at argnums", point)
        kinds = {f"{leaf.dtype} on {leaf.device}" for leaf in point}
        if len(kinds) > 1 or point[0].is_complex():
            raise RuntimeError(
                f"functorch_ext.{self._transform}: expected real inputs of one dtype on one "
                f"device, but got {' and '.join(sorted(kinds))}."
            )


def _are_tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Are the arguments, by position, tensors alone? Then they are the leaves."""
    return not kwargs and all(isinstance(arg, Tensor) for arg in args)


def _signature(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.dtype, leaf.device
    return type(leaf), leaf


def _stand_in(tensor: Tensor) -> Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _push_forward(
    transform: str,
    func: Callable[[list[Tensor]], list[Tensor]],
    leaves: list[Tensor],
    seeds: Tensor,
) -> Tensor:
    same, count = _C.Randomness.SAME, seeds.shape[0]
    basis = _parts(seeds, leaves)
    products = push_columns(same, transform, func, leaves, basis, count, False, in_front=True)[2]
    return _joined(products, count)


def _pull_back(
    transform: str,
    func: Callable[[list[Tensor]], list[Tensor]],
    leaves: list[Tensor],
    seeds: Tensor,
) -> Tensor:
    outputs, pull_back = vjp(func, leaves)
    pulled = vmap(lambda *rows: pull_back(list(rows))[0])(*_parts(seeds, outputs))
    return _joined(pulled, seeds.shape[0])


def _parts(rows: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Each row's elements, in the shapes of tensors."""
    sizes = [tensor.numel() for tensor in like]
    pieces = (rows,) if len(like) == 1 else rows.split(sizes, 1)
    return [_shaped(x, tensor) for x, tensor in zip(pieces, like, strict=True)]


def _shaped(rows: Tensor, like: Tensor) -> Tensor:
    shaped = rows if like.dim() == 1 else rows.reshape(rows.shape[0], *like.shape)
    return shaped if shaped.dtype == like.dtype else shaped.to(like.dtype)


def _joined(tensors: list[Tensor], count: int) -> Tensor:
    """The rows of all tensors, one after the other."""
    # Not -1: it can't be inferred where there are no elements.
    parts = [x if x.dim() == 2 else x.reshape(count, math.prod(x.shape[1:])) for x in tensors]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
