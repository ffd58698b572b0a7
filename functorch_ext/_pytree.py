"""Pytrees: nested containers of tensors, through optree.

``None`` is a leaf, as everywhere in PyTorch's own transforms. Classes that programs register with
PyTorch, or with optree for everybody, are containers.
"""

from collections.abc import Callable
from typing import Any, cast

import optree
from torch import Tensor

from functorch_ext._containers import NAMESPACE, keys_of

Tree = Any

# The structures of most trees, which need no walk: a tensor, and a tuple of one.
_LEAF: optree.PyTreeSpec = optree.tree_structure(
    cast(Any, 0), none_is_leaf=True, namespace=NAMESPACE
)
_TUPLE_OF_ONE: optree.PyTreeSpec = optree.tree_structure(
    cast(Any, (0,)), none_is_leaf=True, namespace=NAMESPACE
)


def flatten(tree: Tree) -> tuple[list[Any], optree.PyTreeSpec]:
    """The leaves of a tree, and its structure."""
    if isinstance(tree, Tensor):
        return [tree], _LEAF
    if type(tree) is tuple and len(tree) == 1 and isinstance(tree[0], Tensor):
        return [tree[0]], _TUPLE_OF_ONE
    return optree.tree_flatten(tree, none_is_leaf=True, namespace=NAMESPACE)


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
    return optree.tree_leaves(tree, none_is_leaf=True, namespace=NAMESPACE)


def map_tree(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """The tree with ``function`` applied to each leaf."""
    return optree.tree_map(function, tree, *rest, none_is_leaf=True, namespace=NAMESPACE)


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
    try:
        return optree.broadcast_prefix(prefix, tree, none_is_leaf=True, namespace=NAMESPACE)
    except ValueError:
        return _broadcast_by_keys(prefix, tree)


def _broadcast_by_keys(prefix: Tree, tree: Tree) -> list[Any]:
    """The same, where a container leaves out children that are ``None``, as dataclasses do.

    ``None`` as the dimension of a field would be left out as well, so the prefix is read by the
    keys of the tree's children.
    """
    if is_leaf(prefix):
        return [prefix] * len(leaves_of(tree))
    if is_leaf(tree) or type(prefix) is not type(tree):
        raise ValueError(f"{prefix!r} is not a prefix of the structure")
    children, context, *_ = _one_level(tree)
    keys = keys_of(tree)
    if keys is not None:
        parts = [key.get(prefix) for key in keys]
    else:
        parts, prefix_context, *_ = _one_level(prefix)
        if len(parts) != len(children) or prefix_context != context:
            raise ValueError(f"{prefix!r} is not a prefix of the structure")
    pairs = zip(parts, children, strict=True)
    return [each for part, child in pairs for each in _broadcast_by_keys(part, child)]


def name_of_leaf(name: str, tree: Tree, index: int) -> str:
    """How a program would write a leaf of the tree of that name: ``args[0]['x']``."""
    path = optree.tree_accessors(tree, none_is_leaf=True, namespace=NAMESPACE)[index]
    for entry in path:
        children, _, entries, _ = _one_level(tree)
        position = entries.index(entry.entry)
        keys = keys_of(tree)
        name = entry.codify(name) if keys is None else f"{name}{keys[position]}"
        tree = children[position]
    return name


def is_leaf(tree: Tree) -> bool:
    """Is the tree no container?"""
    return optree.tree_is_leaf(tree, none_is_leaf=True, namespace=NAMESPACE)


def _one_level(tree: Tree) -> tuple[Any, ...]:
    """Of a container: its children, its context, optree's entries, and how it is made again."""
    return optree.tree_flatten_one_level(tree, none_is_leaf=True, namespace=NAMESPACE)
