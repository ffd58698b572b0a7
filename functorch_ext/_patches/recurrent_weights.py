"""Weights of recurrent modules on a GPU: cuDNN wants them in one piece of memory.

A module whose weights ``functional_call`` has swapped puts them there. Tensors of a transform have
no memory of their own, and are computed with in another way.
"""

import torch
from torch import Tensor, nn

from functorch_ext import _patches


def install() -> None:
    """Leaves weights that are a transform's where they are."""
    plain = nn.RNNBase.flatten_parameters

    def flatten_parameters(self: nn.RNNBase) -> None:
        weights = [weight for weight in self._flat_weights if isinstance(weight, Tensor)]
        if all(map(torch._C._has_storage, weights)):
            plain(self)

    _patches.replace(
        nn.RNNBase,
        "flatten_parameters",
        flatten_parameters,
        "recurrent modules compute with a transform's weights on a GPU",
    )
