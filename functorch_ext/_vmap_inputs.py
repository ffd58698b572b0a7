"""The inputs of one call of a vmapped function, flat, with the dimension each is mapped over."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import optree
from torch import Tensor

from functorch_ext import _C, _batch_sizes
from functorch_ext._arguments import is_int
from functorch_ext._describing import structure_of
from functorch_ext._pytree import (
    Tree,
    broadcast_prefix,
    flatten,
    leaves_of,
    map_tree,
    name_of_leaf,
    unflatten,
)


class MappedInputs:
    """Arguments as leaves, each with its in_dim (non-negative) or ``None``."""

    __slots__ = ("args", "batch_size", "dims", "kwargs", "leaves", "sized_by", "start", "structure")

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        in_dims: Tree,
        kwarg_dims: dict[str, Tree] | None,
        axis_size: int | None,
    ) -> None:
        self.kwargs = kwargs
        if kwarg_dims:
            args, in_dims = _with_kwargs(args, kwargs, in_dims, kwarg_dims)
        self.args = args
        self.leaves, self.structure = flatten(args)
        if callable(in_dims):
            dims = [in_dims(leaf) for leaf in self.leaves]
        elif is_int(in_dims) or in_dims is None:
            dims = [in_dims] * len(self.leaves)
        else:
            dims = _dims_of_leaves(in_dims, args)
        self.batch_size = -1 if axis_size is None else axis_size
        self.start = 0  # the number of the first sample, of a chunk
        self.sized_by: tuple[int, int] | None = None  # the first mapped leaf, and its dimension
        self.dims = [self._checked_dim(i, dim, args) for i, dim in enumerate(dims)]
        if self.batch_size < 0:
            given = "expected at least one Tensor to vmap over" if self.leaves else "got no inputs"
            raise ValueError(
                f"functorch_ext.vmap: {given}, so the number of samples is unknown. Map at least "
                "one tensor (in_dims), or give axis_size."
            )
        if kwarg_dims:
            self.kwargs = {k: v for k, v in kwargs.items() if k not in kwarg_dims}

    def _checked_dim(self, index: int, dim: Any, args: tuple[Any, ...]) -> int | None:
        if dim is None:
            return None
        leaf = self.leaves[index]
        if not is_int(dim):
            raise ValueError(
                "functorch_ext.vmap: in_dim must be either an integer dimension or None, but got "
                f"{dim!r} of type {type(dim).__name__} for {_name_of(index, args)}."
            )
        if not isinstance(leaf, Tensor):
            raise ValueError(
                f"functorch_ext.vmap: Got in_dim={dim} for an input but the input is of type "
                f"{type(leaf)}: {_name_of(index, args)}. Only tensors can be mapped over: "
                "use the in_dim None for it."
            )
        rank = leaf.dim()
        if rank == 0:
            raise ValueError(
                f"functorch_ext.vmap: Got in_dim={dim} for some input, but that input is a Tensor "
                f"of dimensionality 0: {_name_of(index, args)} of shape (). It can't be mapped "
                "over: use the in_dim None for it."
            )
        if not -rank <= dim < rank:
            raise ValueError(
                f"functorch_ext.vmap: Got in_dim={dim} for some input, but that input is a Tensor "
                f"of dimensionality {rank}: {_name_of(index, args)} of shape {tuple(leaf.shape)}. "
                f"Expected an int in [{-rank}, {rank})."
            )
        dim %= rank
        size = leaf.shape[dim]
        if self.batch_size < 0:
            self.batch_size = size
            self.sized_by = (index, dim)
        elif size != self.batch_size:
            raise ValueError(self._describe_sizes(args, index, dim))
        return dim

    def _describe_sizes(self, args: tuple[Any, ...], index: int, dim: int) -> str:
        def described(index: int, dim: int) -> str:
            shape = tuple(self.leaves[index].shape)
            return (
                f"{_name_of(index, args)} of shape {shape} has {shape[dim]} along dimension {dim}"
            )

        if self.sized_by is None:
            first = f"axis_size is {self.batch_size}"
        else:
            first = described(*self.sized_by)
        return (
            "functorch_ext.vmap: Expected all tensors to have the same size in the mapped "
            f"dimension, but "
            f"{first} and {described(index, dim)}. Check in_dims."
        )

    def wrapped(self, level: _C.Level) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments to call the function with, as tensors of the level."""
        leaves = [
            leaf if dim is None else level.wrap(leaf, dim)
            for leaf, dim in zip(self.leaves, self.dims, strict=True)
        ]
        args = unflatten(self.structure, leaves)
        _batch_sizes.take_off(self.args, args, self.dims)
        if args and isinstance(args[-1], _MappedKwargs):
            return args[:-1], {**args[-1].kwargs, **self.kwargs}
        return args, self.kwargs

    def chunks(self, pieces: Iterable[tuple[int, int]]) -> Iterator["MappedInputs"]:
        """The same inputs, for each ``(start, count)`` of the samples."""
        for start, count in pieces:
            chunk = object.__new__(MappedInputs)
            chunk.args, chunk.kwargs = self.args, self.kwargs
            chunk.structure, chunk.dims = self.structure, self.dims
            chunk.start, chunk.batch_size = start, count
            chunk.leaves = [
                leaf if dim is None else leaf.narrow(dim, start, chunk.batch_size)
                for leaf, dim in zip(self.leaves, self.dims, strict=True)
            ]
            yield chunk


@cast(Any, optree.register_pytree_node_class)(namespace="functorch_ext")
class _MappedKwargs:
    """Mapped keyword arguments, carried as one more positional argument."""

    def __init__(self, kwargs: dict[str, Any]) -> None:
        self.kwargs = kwargs

    def __repr__(self) -> str:
        return f"the keyword arguments {self.kwargs!r}"

    def tree_flatten(self) -> tuple[tuple[Any], None]:
        return (self.kwargs,), None

    @classmethod
    def tree_unflatten(cls, metadata: None, children: tuple[Any]) -> "_MappedKwargs":
        return cls(children[0])


def _with_kwargs(
    args: tuple[Any, ...], kwargs: dict[str, Any], in_dims: Tree, kwarg_dims: dict[str, Tree]
) -> tuple[tuple[Any, ...], Tree]:
    unknown = [name for name in kwarg_dims if name not in kwargs]
    if unknown:
        raise ValueError(
            f"functorch_ext.vmap: kwarg_dims names {unknown}, but the call got the keyword "
            f"arguments {list(kwargs)}."
        )
    if callable(in_dims):
        in_dims = tuple(map_tree(in_dims, arg) for arg in args)
    per_argument = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
    mapped = _MappedKwargs({name: kwargs[name] for name in kwarg_dims})
    return (*args, mapped), (*per_argument, _MappedKwargs(dict(kwarg_dims)))


def _dims_of_leaves(in_dims: Tree, args: tuple[Any, ...]) -> list[Any]:
    if not isinstance(in_dims, tuple):
        raise ValueError(
            "functorch_ext.vmap: expected `in_dims` to be int or a (potentially nested) tuple with "
            f"one entry per argument, but got {in_dims!r} of type {type(in_dims).__name__}."
        )
    if len(in_dims) != len(args):
        raise ValueError(
            "functorch_ext.vmap: in_dims is not compatible with the structure of `inputs`: it has "
            f"{len(in_dims)} entries, but the function was called with {len(args)} positional "
            f"arguments: in_dims={in_dims!r}."
        )
    try:
        return broadcast_prefix(in_dims, args)
    except ValueError as error:
        raise ValueError(
            "functorch_ext.vmap: in_dims is not compatible with the structure of `inputs`, nor "
            f"with a part of it from the root: in_dims={in_dims!r}, inputs "
            f"{structure_of(flatten(args)[1])}."
        ) from error


def _name_of(index: int, args: tuple[Any, ...]) -> str:
    *positional, last = args
    count = len(leaves_of(positional))
    if isinstance(last, _MappedKwargs) and index >= count:
        return name_of_leaf("kwargs", last.kwargs, index - count)
    return name_of_leaf("args", args, index)
