"""A call of the program's function, given the tensors among its arguments."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from functorch_ext._jit.signature import Arguments, Static
from functorch_ext._pytree import unflatten

# Of these devices operators may be cast.
_DEVICES = ("cpu", "cuda")


class Call:
    """The function and all of its arguments but the tensors."""

    def __init__(self, func: Callable[..., Any], arguments: Arguments, has_kwargs: bool) -> None:
        self._func, self._structure, self._has_kwargs = func, arguments.structure, has_kwargs
        self._positions = arguments.positions
        self._leaves = [
            None if isinstance(leaf, Tensor) else leaf.value if type(leaf) is Static else leaf
            for leaf in arguments.leaves
        ]
        self._casts = _casts()

    def __call__(self, tensors: Sequence[Tensor]) -> Any:
        """The function's result."""
        leaves = list(self._leaves)
        for position, tensor in zip(self._positions, tensors, strict=True):
            leaves[position] = tensor
        tree = unflatten(self._structure, leaves)
        args, kwargs = tree if self._has_kwargs else (tree, {})
        return self._func(*args, **kwargs)

    def again(self, tensors: Sequence[Tensor]) -> Any:
        """The same, with autocast as it was when this was made."""
        with contextlib.ExitStack() as casts:
            for device, enabled, dtype in self._casts:
                if enabled or torch.is_autocast_enabled(device):
                    casts.enter_context(torch.autocast(device, dtype, enabled))
            return self(tensors)


def _casts() -> list[tuple[str, bool, torch.dtype]]:
    return [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in _DEVICES]
