"""Modes under which operators get other tensors than those that the program has at hand."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils import _pytree as pytree


class StandIns(TorchFunctionMode):
    """Gives the functions that are called something in place of some of their tensors."""

    def is_on(self) -> bool:
        """Not so where something else runs in between."""
        return True

    def given(self, tree: Any) -> Any:
        """The tree with stand-ins for its tensors."""
        return pytree.tree_map(
            lambda leaf: self.of(leaf) if isinstance(leaf, Tensor) else leaf, tree
        )

    def of(self, tensor: Tensor) -> Tensor:
        """What stands for a tensor."""
        raise NotImplementedError


def given_here(tree: Any) -> Any:
    """What all modes give. For functions that keep their arguments, and are not seen by modes."""
    if torch._C._len_torch_function_stack() > 0:
        for mode in reversed(_get_current_function_mode_stack()):
            if isinstance(mode, StandIns) and mode.is_on():
                tree = mode.given(tree)
    return tree
