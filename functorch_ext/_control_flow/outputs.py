"""What functions of control flow return: checked, and chosen between for each sample."""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def check_same(name: str, found: Any, expected: Any, what: tuple[str, str]) -> None:
    """Raises unless both are trees of one structure, with leaves of equal shape and dtype.

    Args:
        name: The function of PyTorch's.
        found: What a function of the program returned.
        expected: What it is to be like.
        what: What the two are called.
    """
    leaves, structure = pytree.tree_flatten(found)
    expected_leaves, expected_structure = pytree.tree_flatten(expected)
    if structure != expected_structure:
        raise RuntimeError(
            f"{name}: Expected {what[0]} and {what[1]} to have the same structure, but found "
            f"{structure} and {expected_structure}."
        )
    for index, (leaf, other) in enumerate(zip(leaves, expected_leaves, strict=True)):
        if isinstance(leaf, Tensor) != isinstance(other, Tensor):
            kinds = type(leaf).__name__, type(other).__name__
        elif isinstance(leaf, Tensor) and (leaf.shape, leaf.dtype) != (other.shape, other.dtype):
            kinds = _kind(leaf), _kind(other)
        else:
            continue
        raise RuntimeError(
            f"{name}: Expected {what[0]} and {what[1]} to have same metadata, but found output "
            f"{index} to be {kinds[0]} and {kinds[1]}."
        )


def _kind(tensor: Tensor) -> str:
    return f"a tensor of shape {tuple(tensor.shape)} and dtype {tensor.dtype}"


def choose(condition: Tensor, held: Any, failed: Any) -> Any:
    """For each sample the leaves of one tree or the other; numbers that differ become tensors."""

    def choose_leaf(held: Any, failed: Any) -> Any:
        if held is failed or (not isinstance(held, Tensor) and held == failed):
            return held
        return torch.where(condition, held, failed)

    return pytree.tree_map(choose_leaf, held, failed)
