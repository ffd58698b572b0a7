"""Operations across the samples of a ``vmap`` that has a name: ``vmap(f, axis_name="batch")``.

As JAX's of the same names. Each works on a pytree of tensors of one sample, and is differentiated
in both modes: around the ``vmap`` it is an ordinary reduction, and inside, where each sample has a
cotangent, it is pulled back by its adjoint across the samples.
"""

import functools
import operator
import sys
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from functorch_ext import _C
from functorch_ext._axis_names import level_named, mesh_named
from functorch_ext._describing import kind_of
from functorch_ext._levels import levels_of
from functorch_ext._pytree import map_tree

Name = Hashable
Names = Name | tuple[Name, ...]
# Of a value with the samples along a dimension: the result, and where it has samples, if it has.
Across = Callable[[Tensor, int], tuple[Tensor, int | None]]


def psum(tree: Any, axis_name: Names) -> Any:
    """The sum over all samples, which each of them gets.

    Args:
        tree: A pytree of tensors, or numbers: ``psum(1, name)`` is the number of samples.
        axis_name: The name of a ``vmap`` around, or a tuple of several to sum over.

    Returns:
        A pytree of the same structure and shapes.

    Raises:
        NameError: no ``vmap`` around has that name.

    Example::

        >>> normalized = lambda x: x / psum(x, "batch")
        >>> vmap(normalized, axis_name="batch")(torch.tensor([1.0, 3.0]))
        tensor([0.2500, 0.7500])
    """
    for name in _several(axis_name):
        tree = _each(tree, name, lambda x, level: _apply(_SUM, level, x), torch.mul)
    return tree


def pmean(tree: Any, axis_name: Names) -> Any:
    """The mean over all samples, which each of them gets.

    Args:
        tree: A pytree of tensors.
        axis_name: The name of a ``vmap`` around, or a tuple of names.

    Returns:
        A pytree of tensors of the same shapes, divided by the number of samples.

    Raises:
        NameError: no ``vmap`` around has that name.

    Example::

        >>> vmap(lambda x: x - pmean(x, "batch"), axis_name="batch")(torch.tensor([1.0, 3.0]))
        tensor([-1.,  1.])
    """
    size, totals = axis_size(axis_name), psum(tree, axis_name)
    if isinstance(totals, Tensor):
        return totals / size
    return map_tree(lambda total: total / size, totals)


def pmax(tree: Any, axis_name: Name) -> Any:
    """The largest of all samples, element by element, which each of them gets.

    Args:
        tree: A pytree of tensors.
        axis_name: The name of a ``vmap`` around.

    Returns:
        A pytree of tensors of the same shapes.

    Raises:
        NameError: no ``vmap`` around has that name.

    Example::

        >>> vmap(lambda x: x - pmax(x, "batch"), axis_name="batch")(torch.tensor([1.0, 3.0]))
        tensor([-2.,  0.])
    """
    return _each(tree, axis_name, functools.partial(_reduced, torch.amax))


def pmin(tree: Any, axis_name: Name) -> Any:
    """The smallest of all samples, element by element, which each of them gets.

    Args:
        tree: A pytree of tensors.
        axis_name: The name of a ``vmap`` around.

    Returns:
        A pytree of tensors of the same shapes.

    Raises:
        NameError: no ``vmap`` around has that name.

    Example::

        >>> vmap(lambda x: x - pmin(x, "batch"), axis_name="batch")(torch.tensor([1.0, 3.0]))
        tensor([0., 2.])
    """
    return _each(tree, axis_name, functools.partial(_reduced, torch.amin))


def all_gather(tree: Any, axis_name: Name, axis: int = 0) -> Any:
    """All samples, stacked, which each sample gets.

    Args:
        tree: A pytree of tensors.
        axis_name: The name of a ``vmap`` around.
        axis: Where the samples go.

    Returns:
        A pytree of tensors with one more dimension. They aren't copied.

    Raises:
        NameError: no ``vmap`` around has that name.
        TypeError: a leaf is no tensor.

    Example::

        >>> nearest = lambda x: (all_gather(x, "batch") - x).abs().topk(2, largest=False)[0][1]
        >>> vmap(nearest, axis_name="batch")(torch.tensor([1.0, 2.0, 5.0]))
        tensor([1., 1., 3.])
    """

    def gather(x: Tensor, level: _C.Level) -> Tensor:
        gathered = _apply(_GATHER, level, x)
        return gathered if axis == 0 else gathered.movedim(0, axis)

    return _each(tree, axis_name, gather)


def ppermute(tree: Any, axis_name: Name, perm: Sequence[tuple[int, int]]) -> Any:
    """Sends samples to others.

    Args:
        tree: A pytree of tensors.
        axis_name: The name of a ``vmap`` around.
        perm: Pairs ``(source, destination)`` of numbers of samples, no destination twice. A sample
            that is no destination gets zeros.

    Returns:
        A pytree of the same structure and shapes.

    Raises:
        NameError: no ``vmap`` around has that name.
        TypeError: ``perm`` holds something else than pairs of whole numbers.
        ValueError: ``perm`` names a sample that doesn't exist, or one twice.

    Example::

        >>> shifted = lambda x: ppermute(x, "batch", [(0, 1), (1, 2)])
        >>> vmap(shifted, axis_name="batch")(torch.tensor([1.0, 2.0, 3.0]))
        tensor([0., 1., 2.])
    """
    try:
        pairs = [*perm]
    except TypeError as error:
        raise TypeError(
            "functorch_ext.ppermute: perm must be a list of pairs (source, destination), but got "
            f"{kind_of(perm)}."
        ) from error

    def send(x: Tensor, level: _C.Level) -> Tensor:
        found = _sources(pairs, int(level.batch_size))
        if found is None:
            raise ValueError(
                f"functorch_ext.ppermute: perm must name each of the {level.batch_size} "
                f"samples at most once as source and as destination, but got {perm!r}."
            )
        return _apply(_permutation(found), level, x)

    return _each(tree, axis_name, send)


def axis_index(axis_name: Name) -> Tensor:
    """The number of the sample in the ``vmap`` of that name, from 0.

    Args:
        axis_name: The name of a ``vmap`` around.

    Returns:
        An int64 tensor of no dimensions, another number in each sample; a DTensor if arguments of
        the ``vmap`` are.

    Raises:
        NameError: no ``vmap`` around has that name.

    Example::

        >>> vmap(lambda x: x * axis_index("batch"), axis_name="batch")(torch.ones(3))
        tensor([0., 1., 2.])
    """
    level, mesh = level_named(axis_name), mesh_named(axis_name)

    def numbers() -> Tensor:
        if mesh is None:
            return torch.arange(level.batch_size)
        return _on_mesh(torch.arange(level.batch_size, device=mesh.device_type), mesh)

    return level.wrap(_C.run_below(level, numbers), 0)


def axis_size(axis_name: Names) -> int:
    """How many samples the ``vmap`` of that name has.

    Args:
        axis_name: The name of a ``vmap`` around, or a tuple of names.

    Returns:
        The number of samples; of several names, their product.

    Raises:
        NameError: no ``vmap`` around has that name.

    Example::

        >>> vmap(lambda x: x / axis_size("batch"), axis_name="batch")(torch.ones(4))
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    size = 1
    for name in _several(axis_name):
        size *= level_named(name).batch_size
    return size


class _Collective(NamedTuple):
    """A linear map across samples, and how its adjoint is made."""

    across: Across
    adjoint: Callable[[], "_Collective"]


def _scattered(value: Tensor, dim: int) -> tuple[Tensor, int]:
    return value.sum(dim), 0


_SUM: _Collective = _Collective(lambda value, dim: (value.sum(dim), None), lambda: _SUM)
_GATHER: _Collective = _Collective(
    lambda value, dim: (value.movedim(dim, 0), None), lambda: _SCATTER
)
_SCATTER: _Collective = _Collective(_scattered, lambda: _GATHER)


# By how much all samples move on, or what each of them gets: -1 stands for zeros.
_Sources = int | list[int]


def _sources(pairs: list[Any], size: int) -> _Sources | None:
    """What pairs of a source and a destination say; ``None`` if they name one that isn't, or twice.

    They are read in C: there may be as many as samples.
    """
    found = _C.sources_of(pairs, size)
    if found is NotImplemented:  # other numbers than Python's
        try:
            whole = [(operator.index(source), operator.index(to)) for source, to in pairs]
        except (TypeError, ValueError) as error:
            raise TypeError(
                "functorch_ext.ppermute: perm must hold pairs (source, destination) of whole "
                f"numbers, but got {pairs!r}."
            ) from error
        found = _C.sources_of(whole, size)
    return found


def _permutation(sources: _Sources) -> _Collective:
    if isinstance(sources, int):
        return _Collective(
            lambda value, dim: (value.roll(sources, dim), dim), lambda: _permutation(-sources)
        )

    def across(value: Tensor, dim: int) -> tuple[Tensor, int]:
        numbers = torch.tensor(sources, dtype=torch.int64)
        found = value.index_select(dim, _beside(value, numbers.clamp(min=0).to(value.device)))
        if min(sources, default=0) < 0:
            shape = [-1 if i == dim % value.dim() else 1 for i in range(value.dim())]
            missing = (numbers < 0).to(value.device).reshape(shape)
            found = found.masked_fill(_beside(value, missing), 0)
        return found, dim

    def adjoint() -> _Collective:
        pairs = [(to, source) for to, source in enumerate(sources) if source >= 0]
        inverse = _sources(pairs, len(sources))
        assert inverse is not None
        return _permutation(inverse)

    return _Collective(across, adjoint)


def _beside(x: Tensor, made: Tensor) -> Tensor:
    """A tensor that was made, as one that can be combined with x: all processes have it."""
    distributed: Any = sys.modules.get("torch.distributed.tensor")
    below = _C.below_all_levels(x)
    if distributed is None or not isinstance(below, distributed.DTensor):
        return made
    return _on_mesh(made, below.device_mesh)


def _on_mesh(made: Tensor, mesh: Any) -> Tensor:
    distributed: Any = sys.modules["torch.distributed.tensor"]
    return distributed.DTensor.from_local(made, mesh, run_check=False)


def _several(axis_name: Names) -> tuple[Name, ...]:
    return axis_name if isinstance(axis_name, tuple) else (axis_name,)


def _each(
    tree: Any,
    axis_name: Name,
    function: Callable[[Tensor, _C.Level], Tensor],
    of_number: Callable[..., Any] | None = None,
) -> Any:
    level = level_named(axis_name)
    if isinstance(tree, Tensor):
        return function(tree, level)

    def apply(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf, level)
        if of_number is not None and isinstance(leaf, int | float | complex):
            return leaf * level.batch_size
        raise TypeError(
            f"functorch_ext: expected tensors to combine across {axis_name!r}, but got "
            f"{type(leaf).__name__}."
        )

    return map_tree(apply, tree)


def _apply(collective: _Collective, level: _C.Level, x: Tensor) -> Tensor:
    value, dim = level.unwrap(x)
    if dim is None and all(each.depth != level.depth for each in levels_of(x)):
        make = lambda: _beside(x, torch.zeros(level.batch_size, dtype=x.dtype, device=x.device))
        x = x + level.wrap(_C.run_below(level, make), 0)
        value, dim = level.unwrap(x)
    if dim is None or level.differentiates((x,)):
        return _AcrossSamples.apply((collective, level), x)
    # To the planes below, which may differentiate, it is made of ordinary operators.
    return level.wrap(*_C.run_below(level, collective.across, value, dim))


def _reduced(reduction: Callable[..., Tensor], x: Tensor, level: _C.Level) -> Tensor:
    if level.batch_size == 0:  # nobody gets the largest of none
        return x
    value, dim = level.unwrap(x)
    if dim is None or level.differentiates((x,)):
        return reduction(_apply(_GATHER, level, x), 0)
    return level.wrap(_C.run_below(level, reduction, value, dim), None)


class _AcrossSamples(Function):
    """Goes below the planes one by one until it gets to the one of the samples."""

    @staticmethod
    def forward(call: tuple[_Collective, _C.Level], x: Tensor) -> Tensor:
        raise AssertionError("a tensor that differs between the samples has their level")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.collective, ctx.level = inputs[0]

    @staticmethod
    def vmap(info: Any, in_dims: Any, call: tuple[_Collective, _C.Level], x: Tensor) -> Any:
        collective, level = call
        below = _C.running_level()
        if below is None or below.depth < level.depth:
            return collective.across(x, in_dims[1])
        # A plane above it. Its samples come first, so that those of the result do.
        return _AcrossSamples.apply(call, x.movedim(in_dims[1], -1)), -1

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[None, Tensor]:
        return None, _apply(ctx.collective.adjoint(), ctx.level, cotangent)

    @staticmethod
    def jvp(ctx: Any, _: None, tangent: Tensor) -> Tensor:
        return _apply(ctx.collective, ctx.level, tangent)
