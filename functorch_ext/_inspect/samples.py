"""Which samples of a tensor hold numbers that aren't finite."""

import sys
import types

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._control_flow.branch import Branch, is_traced
from functorch_ext._inspect.places import frames, is_ours

# An index for each vmap, the outermost first.
Sample = tuple[int, ...]

# Of a level: (kind, depth).
_Level = tuple[str, int]

# The functions that compute a chunk of samples, or of vectors of the basis.
_OF_SAMPLES = "vmap.<locals>.run.<locals>.body"
_OF_COLUMNS = "_by_columns.<locals>.compute.<locals>.push_chunk"
_OF_ROWS = "_by_rows.<locals>.jacobian.<locals>.body.<locals>.<lambda>"


def not_finite(tensor: Tensor) -> dict[str, tuple[Sample, ...]]:
    """The kinds of numbers that aren't finite, with the samples that hold them.

    In a branch of control flow the samples that take it count, and in a chunk all that came before.
    """
    with torch._C.DisableTorchFunction():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return {}
        try:
            found = _C.run_outside_transforms(_bad_of, tensor)
            if not found:
                return {}
            starts = _starts(sys._getframe(1))
            conditions = _conditions(sys._getframe(1))
            return _C.run_outside_transforms(_samples_of, found, starts, conditions)
        except RuntimeError:
            return {}  # a tensor of torch.func's, which only its transforms understand


# Of a kind: for each sample, whether it has such a number; and the levels of its dimensions.
_Bad = dict[str, tuple[Tensor, list[_Level]]]


def _bad_of(tensor: Tensor) -> _Bad:
    plain, _ = _below(tensor)
    if type(plain) not in (Tensor, torch.nn.Parameter) or plain.is_meta or is_traced(plain):
        return {}
    value, levels = _stacked(tensor)
    found = {}
    for kind, test in (("NaN", torch.isnan), ("infinity", torch.isinf)):
        bad = test(value)
        if bad.any().item():
            found[kind] = bad.reshape(*bad.shape[: len(levels)], -1).any(-1), levels
    return found


def _samples_of(
    found: _Bad, starts: dict[_Level, int], conditions: list[Tensor]
) -> dict[str, tuple[Sample, ...]]:
    samples = {}
    for kind, (bad, levels) in found.items():
        for condition in conditions:
            bad, levels = _both((bad, levels), _stacked(condition))
        if bad.any().item():
            rows = bad.nonzero().tolist() if levels else []
            first = [starts.get(level, 0) for level in levels]
            samples[kind] = tuple(
                tuple(index + start for index, start in zip(row, first, strict=True))
                for row in rows
            )
    return samples


def _below(tensor: Tensor) -> tuple[Tensor, list[tuple[_Level, int | None]]]:
    """The plain tensor, and the levels above it with their dimensions, the innermost first."""
    above = []
    while (found := _C.look_at(tensor)) is not None:
        tensor, (kind, depth, _), _, bdim, _, _ = found
        above.append(((kind, depth), bdim))
    return tensor, above


def _stacked(tensor: Tensor) -> tuple[Tensor, list[_Level]]:
    """The numbers, with the samples of each level in front, the outermost first."""
    plain, above = _below(tensor)
    levels: list[_Level] = []
    batched = any(bdim is not None for _, bdim in above)
    value = _numbers_of(plain.detach(), batched)
    for level, bdim in reversed(above):
        if bdim is not None:
            value = value.movedim(len(levels) + bdim, len(levels))
            levels.append(level)
    return value, levels


def _numbers_of(tensor: Tensor, batched: bool) -> Tensor:
    """As a strided tensor: all elements, or if it doesn't matter where they are, those stored."""
    if tensor.is_nested:
        return tensor.values()
    if tensor.layout is torch.strided:
        return tensor
    if batched or not (tensor.is_sparse or tensor.is_sparse_csr):
        return tensor.to_dense()
    return tensor._values() if tensor.is_sparse else tensor.values()


def _both(
    first: tuple[Tensor, list[_Level]], second: tuple[Tensor, list[_Level]]
) -> tuple[Tensor, list[_Level]]:
    """The conjunction, for each sample of the levels of both."""
    levels = sorted({*first[1], *second[1]}, key=lambda level: level[1])
    spread = []
    for condition, of in (first, second):
        sizes = iter(condition.shape)
        spread.append(condition.reshape([next(sizes) if each in of else 1 for each in levels]))
    return spread[0] & spread[1], levels


def _conditions(frame: types.FrameType) -> list[Tensor]:
    """What holds for the samples that take the branches that are computed."""
    run = Branch.run.__code__
    return [each.f_locals["self"].condition for each in frames(frame) if each.f_code is run]


def _starts(frame: types.FrameType) -> dict[_Level, int]:
    """The numbers of the first sample, or vector, of the chunks that are computed."""
    starts: dict[_Level, int] = {}
    of_basis = []
    for each in frames(frame):
        name = each.f_code.co_qualname
        if not is_ours(each.f_code):
            continue
        if name == _OF_SAMPLES:
            starts["vmap", each.f_locals["level"].depth] = each.f_locals["inputs"].start
        elif name in (_OF_COLUMNS, _OF_ROWS):
            of_basis.append(each.f_locals["start"])
    levels = [(kind, depth) for kind, depth, _ in reversed(_C.running_levels()) if kind == "basis"]
    if len(levels) == len(of_basis):
        starts |= dict(zip(levels, of_basis, strict=True))
    return starts
