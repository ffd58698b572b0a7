"""The standard basis that Jacobians push through, and putting their rows and columns together."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._chunk_sizes import Chunking, even_pieces


def chunks(tensors: list[Tensor], chunk_size: int | None) -> Iterator[tuple[int, int]]:
    """Pieces ``(start, count)`` of the numbers of all the tensors' elements.

    All in one where sizes are symbolic: how many chunks there are isn't known.
    """
    total = sum(tensor.numel() for tensor in tensors)
    if not isinstance(total, int):
        yield 0, total
        return
    yield from even_pieces(total, chunk_size)


def each_chunk(
    call: Callable[[int, int], Any],
    tensors: list[Tensor],
    chunk_size: int | Chunking | None,
    same_draws: bool = True,
) -> list[Any]:
    """``call(start, count)`` for each chunk; all draw the same random numbers, or each anew."""
    if isinstance(chunk_size, Chunking):
        total = sum(tensor.numel() for tensor in tensors)
        if isinstance(total, int):
            chunked = chunk_size.of_call(total, tensors)
            measured = lambda piece: chunked.call(call, *piece)
            if same_draws:
                return _C.map_with_same_draws(measured, chunked)
            return [measured(piece) for piece in chunked]
        chunk_size = None
    pieces = list(chunks(tensors, chunk_size))
    if len(pieces) > 1 and same_draws:
        return _C.map_with_same_draws(lambda piece: call(*piece), pieces)
    return [call(*piece) for piece in pieces]


def _shaped(tensor: Tensor, output: Tensor, given: Tensor) -> Tensor:
    """The tensor as a block of a Jacobian."""
    shape = output.shape + given.shape
    return tensor if tensor.shape == shape else tensor.reshape(shape)


def join_rows(
    chunks: list[list[Tensor]], outputs: list[Tensor], inputs: list[Tensor]
) -> list[list[Tensor]]:
    """Jacobian blocks ``[output][input]`` from chunks of rows ``[chunk][input]``."""
    blocks: list[list[Tensor]] = [[] for _ in outputs]
    sizes = [output.numel() for output in outputs]
    for column, given in enumerate(inputs):
        parts = [chunk[column] for chunk in chunks]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts)
        split = (rows,) if len(outputs) == 1 else rows.split(sizes)
        for block, part, output in zip(blocks, split, outputs, strict=True):
            block.append(_shaped(part, output, given))
    return blocks


def split_columns(
    chunks: list[list[Tensor]], outputs: list[Tensor], inputs: list[Tensor]
) -> list[list[Tensor]]:
    """Jacobian blocks ``[output][input]`` from chunks of columns ``[chunk][output]``."""
    blocks = []
    sizes = [given.numel() for given in inputs]
    for row, output in enumerate(outputs):
        parts = [chunk[row] for chunk in chunks]
        columns = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        split = (columns,) if len(inputs) == 1 else columns.split(sizes, -1)
        blocks.append(
            [_shaped(part, output, given) for part, given in zip(split, inputs, strict=True)]
        )
    return blocks
