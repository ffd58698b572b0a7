"""A function that some of the samples call: the branch of a ``cond``, the body of a ``while_loop``.

All samples compute it, and those that wouldn't are given the inputs of one that would. So it sees
no number that it wasn't meant for: it neither raises nor gives derivatives that are infinite, which
would make those of the other branch NaN. What the function closes over counts as its inputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import _TorchDispatchModeKey
from torch._ops import HigherOrderOperator
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

from functorch_ext import _C
from functorch_ext._levels import levels_of
from functorch_ext._stand_ins import StandIns

# What is called for an operator that takes functions. They belong to the branch.
kernels: dict[HigherOrderOperator, Callable[..., Any]] = {}

_TRACING = (
    _TorchDispatchModeKey.PROXY,
    _TorchDispatchModeKey.FAKE,
    _TorchDispatchModeKey.FUNCTIONAL,
)


def outcomes(condition: Tensor) -> set[bool] | None:
    """What the condition is for some sample; ``None`` if values can't be looked at (tracing)."""
    plain = _C.below_all_levels(condition)
    while _is_of_torch_func(plain):
        plain = _C.below_all_levels(torch._C._functorch.get_unwrapped(plain))
    if is_traced(plain) or plain.is_meta or torch.jit.is_tracing():
        return None
    if plain.numel() == 1:
        return {bool(plain)}
    holds, fails = bool(plain.any()), not bool(plain.all())
    return {outcome for outcome, occurs in ((True, holds), (False, fails)) if occurs}


def is_traced(plain: Tensor) -> bool:
    """Do operators on a tensor become part of a graph, rather than compute?"""
    modes = any(torch._C._get_dispatch_mode(key) is not None for key in _TRACING)
    return modes or torch._is_functional_tensor(plain)


class Branch(StandIns):
    """What is called where a condition holds.

    As a mode it sees each operator that the function calls, and gives it inputs that are right.

    Args:
        condition: A bool tensor without dimensions.
        is_taken: Does it hold for some sample? ``None``: that isn't known.
    """

    def __init__(self, condition: Tensor, is_taken: bool | None) -> None:
        super().__init__()
        self.condition = condition
        self._levels = levels_of(condition)
        self._depth = _depth()
        self._first = _first_sample(condition, self._levels)
        below = _C.below_all_levels(condition)
        # Samples of torch.func's may take it or not.
        self._any = None if is_taken and not _is_of_torch_func(below) else below.any()
        # What stands for a tensor from outside, which is kept, and how often that was written to.
        # One that is made in another grad mode has other derivatives.
        self._inputs: dict[tuple[int, bool, bool], tuple[Tensor, Tensor, int]] = {}
        self._inside: Any = WeakTensorKeyDictionary()

    def run(self, function: Callable[..., Any], operands: Sequence[Any]) -> Any:
        """``function(*operands)``. Writes to tensors from outside are those of its samples."""
        with self:
            result = function(*self.given(operands))
        for outside, given, version in self._inputs.values():
            if given is not outside and _version(given) != version:
                outside.copy_(torch.where(self.condition, given, outside))
        return result

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.is_on():
            return func(*args, **kwargs)
        args, kwargs = self.given((tuple(args), kwargs))
        if func in kernels:
            with self:
                result = kernels[func](*args, **kwargs)
        else:
            result = func(*args, **kwargs)
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and _key(leaf) not in self._inputs:
                self._inside[leaf] = None
        return result

    def is_on(self) -> bool:
        """Or does an operator call something, of what it computes with on a plane below?"""
        return _depth() >= self._depth

    def of(self, tensor: Tensor) -> Tensor:
        """What stands for a tensor inside the branch."""
        if tensor in self._inside:
            return tensor
        known = self._inputs.get(_key(tensor))
        if known is None:
            given = self._given(tensor)
            known = self._inputs[_key(tensor)] = tensor, given, _version(given)
            if given is not tensor:
                self._inside[given] = None
        return known[1]

    def _given(self, tensor: Tensor) -> Tensor:
        if any(level in self._levels for level in levels_of(tensor)):
            return torch.where(self.condition, tensor, _sample(tensor.detach(), self._first))
        # Shared by all samples. If none of them takes the branch there is no sample to imitate, but
        # no derivative either.
        if self._any is not None and (tensor.is_floating_point() or tensor.is_complex()):
            return torch.where(self._any, tensor, tensor.detach())
        return tensor


class Called(TorchFunctionMode):
    """Calls the functions that control flow takes as they are, as inside a transform."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in kernels:
            return func(*args, **(kwargs or {}))
        with self:
            return kernels[func](*args, **(kwargs or {}))


def are_called() -> bool:
    """Does control flow call its functions as they are, here?"""
    if _C.transform_runs():
        return True
    modes = torch._C._len_torch_function_stack() and _get_current_function_mode_stack()
    return any(isinstance(mode, Called) for mode in modes or ())


def _key(tensor: Tensor) -> tuple[int, bool, bool]:
    return id(tensor), torch.is_grad_enabled(), torch._C._is_fwd_grad_enabled()


def _is_of_torch_func(tensor: Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _depth() -> int:
    level = _C.running_level()
    return 0 if level is None else level.depth


def _first_sample(condition: Tensor, levels: list[_C.Level]) -> dict[_C.Level, Tensor]:
    """The number, in each vmap, of the first sample for which a condition holds."""
    number, count = torch.zeros((), dtype=torch.long, device=condition.device), 1
    for level in levels:
        each = _C.run_below_all(torch.arange, level.batch_size, device=condition.device)
        number, count = number + count * level.wrap(each, 0), count * level.batch_size
    # One that doesn't exist is after all others.
    last = count - 1
    first = _C.below_all_levels(torch.where(condition, number, last)).min()
    found = {}
    for level in levels:
        found[level], first = first % level.batch_size, first // level.batch_size
    return found


def _sample(tensor: Tensor, at: dict[_C.Level, Tensor]) -> Tensor:
    """One sample of the vmaps ``at`` numbers; others still differ between theirs."""
    level = _C.level_of_tensors((tensor,))
    if level is None:
        return tensor
    value, dim = level.unwrap(tensor)
    if dim is not None and level in at:
        value = _C.run_below(level, _pick, value, dim, at[level])
        dim = None
    value = _C.run_below(level, _sample, value, at)
    return value if dim is None else level.wrap(value, dim)


def _pick(tensor: Tensor, dim: int, number: Tensor) -> Tensor:
    return tensor.index_select(dim, number.reshape(1)).squeeze(dim)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
