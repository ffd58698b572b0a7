"""Printing tensors inside a transform."""

import functools

import torch

from functorch_ext import _C


def install() -> None:
    """Teaches ``repr`` of a tensor about the engine's wrappers, which have no storage to print."""
    plain = torch._tensor_str._str

    @functools.wraps(plain)
    def with_wrappers(self, *, tensor_contents=None):
        description = _C.describe(self)
        if description is None:
            return plain(self, tensor_contents=tensor_contents)
        value, kind, depth, bdim = description
        where = "" if bdim is None else f", bdim={bdim}"
        inner = with_wrappers(value).replace("\n", "\n    ")
        return f"{kind}Tensor(level={depth}{where}, value=\n    {inner}\n)"

    torch._tensor_str._str = with_wrappers
