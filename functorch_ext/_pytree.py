"""Pytrees: nested containers of tensors, through optree.

``None`` is a leaf, as everywhere in PyTorch's own transforms.
"""

from collections.abc import Callable
from typing import Any, cast

import optree
from torch import Tensor

Tree = Any

_NAMESPACE = "functorch_ext"

# The structures of most trees, which need no walk: a tensor, and a tuple of one.
_LEAF: optree.PyTreeSpec = optree.tree_structure(
    cast(Any, 0), none_is_leaf=True, namespace=_NAMESPACE
)
_TUPLE_OF_ONE: optree.PyTreeSpec = optree.tree_structure(
    cast(Any, (0,)), none_is_leaf=True, namespace=_NAMESPACE
)


def flatten(tree: Tree) -> tuple[list[Any], optree.PyTreeSpec]:
    """The leaves of a tree, and its structure."""
    if isinstance(tree, Tensor):
        return [tree], _LEAF
    if type(tree) is tuple and len(tree) == 1 and isinstance(tree[0], Tensor):
        return [tree[0]], _TUPLE_OF_ONE
    return optree.tree_flatten(tree, none_is_leaf=True, namespace=_NAMESPACE)


def unflatten(structure: optree.PyTreeSpec, leaves: list[Any]) -> Tree:
    """The tree of that structure with those leaves."""
    if structure is _LEAF:
        return leaves[0]
    if structure is _TUPLE_OF_ONE:
        return (leaves[0],)
    return optree.tree_unflatten(structure, leaves)


def leaves_of(tree: Tree) -> list[Any]:
    """The leaves of a tree."""
    if isinstance(tree, Tensor):
        return [tree]
    return optree.tree_leaves(tree, none_is_leaf=True, namespace=_NAMESPACE)


def map_tree(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """The tree with ``function`` applied to each leaf."""
    return optree.tree_map(function, tree, *rest, none_is_leaf=True, namespace=_NAMESPACE)


def map_tensors(function: Callable[[Tensor], Any], tree: Tree) -> Tree:
    """The tree with ``function`` applied to each tensor; other leaves stay."""
    if isinstance(tree, Tensor):
        return function(tree)
    return map_tree(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, tree)


def broadcast_prefix(prefix: Tree, tree: Tree) -> list[Any]:
    """The leaves of ``prefix``, each repeated for all leaves of the subtree of ``tree`` it stands
    for.

    Raises:
        ValueError: ``prefix`` is not a prefix of ``tree``.
    """
    return optree.broadcast_prefix(prefix, tree, none_is_leaf=True, namespace=_NAMESPACE)
