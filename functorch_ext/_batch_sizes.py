"""Containers that have sizes of their own, as TensorDict has a batch size: vmap takes the mapped
dimension off these, and puts it back, as it does with the tensors inside.
"""

from collections.abc import Callable
from typing import Any

import optree
import torch

from functorch_ext import _containers
from functorch_ext._pytree import Tree, leaves_of

_Dims = list[int | None]
_Change = Callable[[list[int], int], Any]


def take_off(before: Tree, after: Tree, dims: _Dims) -> None:
    """Gives containers in ``after`` the sizes of those in ``before`` without the mapped one."""
    if _containers.sized:
        _change(
            before, after, dims, lambda sizes, dim: sizes.pop(dim) if dim < len(sizes) else None
        )


def put_on(before: Tree, after: Tree, dims: _Dims, batch_size: int) -> None:
    """Gives containers in ``after`` the sizes of those in ``before`` with the mapped one."""
    if _containers.sized:
        _change(before, after, dims, lambda sizes, dim: sizes.insert(dim, batch_size))


def _change(before: Tree, after: Tree, dims: _Dims, change: _Change) -> None:
    start = 0
    for old, new in zip(_nodes(before), _nodes(after), strict=True):
        end = start + len(leaves_of(old))
        of_node, start = set(dims[start:end]), end
        if type(old) not in _containers.sized or len(of_node) != 1:
            continue
        (dim,) = of_node
        _change_node(old, new, dim, change)


def _change_node(old: Any, new: Any, dim: int | None, change: _Change) -> None:
    sizes = list(old.batch_size)
    # A dimension that is counted from the end, or lies further in, isn't one of the container.
    if dim is not None and 0 <= dim <= len(sizes):
        change(sizes, dim)
    new.batch_size = torch.Size(sizes)
    for key, child in old.items():
        if type(child) in _containers.sized:
            _change_node(child, new.get(key), dim, change)


def _nodes(tree: Tree) -> list[Any]:
    return optree.tree_leaves(
        tree,
        is_leaf=lambda node: type(node) in _containers.sized,
        none_is_leaf=True,
        namespace=_containers.NAMESPACE,
    )
