"""Runs a row with one side's transforms, and says what came of it."""

import importlib
import re
import warnings

import torch
from torch.utils import _pytree as pytree

RIGHT, LOOPS, WRONG = "right", "loops", "WRONG"
SIDES = ("functorch_ext", "torch.func")
LOOP_WARNING = r"(no batching rule|performance drop)"


def transforms(side):
    if side == "torch.func":
        # Without this, torch.func doesn't tell of its loops over samples.
        torch._C._debug_only_display_vmap_fallback_warnings(True)
    return importlib.import_module(side)


def close(actual, expected, tolerance):
    """Whether two results have the same structure, dtypes and shapes, and close numbers."""
    actual, expected = pytree.tree_leaves(actual), pytree.tree_leaves(expected)
    if len(actual) != len(expected):
        return f"{len(actual)} results instead of {len(expected)}"
    for got, want in zip(actual, expected):
        if not isinstance(want, torch.Tensor):
            if type(got) is not type(want) or got != want:
                return f"{got!r} instead of {want!r}"
            continue
        if not isinstance(got, torch.Tensor):
            return f"a {type(got).__name__} instead of a tensor"
        if (got.dtype, got.shape) != (want.dtype, want.shape):
            return f"{got.dtype} {tuple(got.shape)} instead of {want.dtype} {tuple(want.shape)}"
        got, want = got.detach(), want.detach()
        if not torch.allclose(got, want, rtol=tolerance, atol=tolerance, equal_nan=True):
            return f"off by {(got - want).abs().max().item():.1e}"
    return None


def first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def outcome(row, F):
    """(what came of it, its details): details is a message or a difference."""
    torch.manual_seed(0)
    expected = row.expected()
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            actual = row.compute(F)
        except Exception as error:
            return "raises", first_line(error)
    difference = close(actual, expected, row.tolerance)
    if difference:
        return WRONG, difference
    for warning in caught:
        if re.search(LOOP_WARNING, str(warning.message)):
            return LOOPS, str(warning.message).splitlines()[0]
    return RIGHT, ""
