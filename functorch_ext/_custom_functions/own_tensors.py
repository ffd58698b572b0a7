"""The tensors of a vmap in formulas that are computed on another level.

A custom function's forward, backward and jvp run on a level of samples of their own, perhaps after
the vmap has returned. They get their arguments as tensors of that level. But they may close over
others, which are of the vmap's.
"""

import weakref
from typing import Any

from torch import Tensor

from functorch_ext import _C
from functorch_ext._control_flow.branch import kernels
from functorch_ext._stand_ins import StandIns, given_here

# The levels that formulas are computed on, now.
_of_formulas: weakref.WeakSet[_C.Level] = weakref.WeakSet()


def is_of_formula(level: _C.Level) -> bool:
    """Are a custom function's formulas computed on the level, of what the planes below know?"""
    return level in _of_formulas


class Failures:
    """Tells why a formula failed, of what has happened on this thread since this was made."""

    def __init__(self) -> None:
        self._memory, self._foreign = _C.memory_refusals(), _C.foreign_tensors()

    def of_foreign(self) -> bool:
        """Did an operator get a tensor of a transform that isn't around it?"""
        return _C.foreign_tensors() > self._foreign

    def of_memory(self) -> bool:
        """Did code ask for the memory of a tensor that has none?"""
        return _C.memory_refusals() > self._memory and not self.of_foreign()


class OwnTensors(StandIns):
    """Tensors of a vmap as those of the level that its samples are computed on.

    Args:
        vmap: The level of the vmap.
        level: The level of the formula, of as many samples.
    """

    def __init__(self, vmap: _C.Level, level: _C.Level) -> None:
        super().__init__()
        self._vmap, self.level = vmap, level
        _of_formulas.add(level)
        self._known: dict[tuple[int, int | None], tuple[Tensor, Tensor]] = {}

    def note(self, values: Any, stand_ins: Any) -> None:
        """Values of the vmap's tensors, and what stands for them already."""
        for value, stand_in in zip(values, stand_ins, strict=True):
            if isinstance(value, Tensor) and value is not stand_in:
                key = id(value), self.level.unwrap(stand_in)[1]
                self._known.setdefault(key, (value, stand_in))

    def check(self, values: Any) -> None:
        """Raises if any of what the formula left isn't of a plane below its level."""
        for value in values:
            description = _C.describe(value) if isinstance(value, Tensor) else None
            if description is not None and description[2] >= self.level.depth:
                _C.refuse_foreign_tensor()

    def holds(self, tensor: Tensor) -> bool:
        """Is it a tensor of the vmap's?"""
        return self._vmap.unwrap(tensor)[0] is not tensor

    def of(self, tensor: Tensor) -> Tensor:
        """What stands for a tensor."""
        value, dim = self._vmap.unwrap(tensor)
        if value is tensor:
            return tensor
        value = given_here(value)  # it may be of an outer vmap, and that computed again as well
        known = self._known.get((id(value), dim))
        if known is None:
            known = self._known[id(value), dim] = value, self.level.wrap(value, dim)
        return known[1]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = self.given((tuple(args), kwargs or {}))
        if func in kernels:
            with self:
                return kernels[func](*args, **kwargs)
        return func(*args, **kwargs)
