"""Pytrees taken apart: their tensors on one side, the rest on the other."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from functorch_ext._pytree import Tree, flatten, unflatten


class Skeleton:
    """A tree without its tensors. It holds none of them, so that who keeps it makes no cycle.

    Attributes:
        structure: That of the tree.
        length: Of a tuple of tensors: how many; otherwise ``None``.
    """

    length: int | None = None

    def __init__(self, others: list[tuple[Any] | None], structure: Any) -> None:
        self.structure = structure
        self._others = others  # the leaves, each in a tuple; None for a tensor

    @property
    def places(self) -> list[int]:
        """Which of the leaves are tensors."""
        return [i for i, other in enumerate(self._others) if other is None]

    def filled(self, values: Sequence[Any]) -> Tree:
        """The tree with these in place of the tensors."""
        given = iter(values)
        return unflatten(self.structure, [next(given) if x is None else x[0] for x in self._others])

    def like(self, values: Sequence[Any]) -> Tree:
        """The same, with ``None`` for the rest."""
        given = iter(values)
        return unflatten(self.structure, [next(given) if x is None else None for x in self._others])

    def values_of(self, tree: Tree) -> list[Any] | None:
        """What another tree has where the tensors are; ``None`` if its structure is another."""
        leaves, structure = flatten(tree)
        if structure != self.structure:
            return None
        return [leaf for leaf, other in zip(leaves, self._others, strict=True) if other is None]


class _OfTensor(Skeleton):
    """Of a tensor by itself."""

    def filled(self, values: Sequence[Any]) -> Tree:
        (value,) = values
        return value

    like = filled

    def values_of(self, tree: Tree) -> list[Any] | None:
        return [tree] if isinstance(tree, Tensor) else super().values_of(tree)


class _OfTuple(Skeleton):
    """Of a tuple of tensors."""

    def __init__(self, length: int) -> None:
        super().__init__([None] * length, flatten((None,) * length)[1])
        self.length = length

    def filled(self, values: Sequence[Any]) -> Tree:
        return tuple(values)

    like = filled


class _OfNone(Skeleton):
    """Of ``None``."""

    def filled(self, values: Sequence[Any]) -> Tree:
        return None

    like = filled


_of_none = _OfNone([(None,)], flatten(None)[1])
_of_tensor = _OfTensor([None], flatten(None)[1])
_of_tuples: dict[int, Skeleton] = {}


def taken_apart(tree: Tree) -> tuple[tuple[Tensor, ...], Skeleton]:
    """The tensors of a tree, and what is left of it."""
    if isinstance(tree, Tensor):
        return (tree,), _of_tensor
    if type(tree) is tuple and all([isinstance(x, Tensor) for x in tree]):
        count = len(tree)
        known = _of_tuples.get(count)
        if known is None:
            known = _of_tuples[count] = _OfTuple(count)
        return tree, known
    if tree is None:
        return (), _of_none
    leaves, structure = flatten(tree)
    others = [None if isinstance(x, Tensor) else (x,) for x in leaves]
    return tuple([x for x in leaves if isinstance(x, Tensor)]), Skeleton(others, structure)
