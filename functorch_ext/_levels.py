"""Which vmaps a tensor belongs to."""

from torch import Tensor

from functorch_ext import _C


def levels_of(tensor: Tensor) -> list[_C.Level]:
    """The vmaps between whose samples a tensor may differ, the innermost first."""
    levels = []
    while (level := _C.level_of_tensors((tensor,))) is not None:
        tensor, dim = level.unwrap(tensor)
        if dim is not None:
            levels.append(level)
    return levels
