"""Rules for products: of matrices, and convolutions."""

import itertools

import torch
from torch import Tensor

from functorch_ext._sparsity.pattern import MOST_MEMBERS, Edges, Pattern, through
from functorch_ext._sparsity.rules import Call, Value, along, numbers, register


def _matrix_product(call: Call) -> list[Pattern] | None:
    """``a @ b``, and ``c + a @ b``, of stacks of matrices and of vectors."""
    arguments = list(call.arguments.values())
    operands = [each for each in arguments if isinstance(each, Value)]
    a, b = operands[-2:]
    elements = call.outputs[0].numel()
    edges = []
    if len(operands) == 3 and operands[0].pattern is not None:
        sources = numbers(operands[0].like).expand(call.outputs[0].shape).flatten()
        edges.append(Edges(operands[0].pattern, torch.arange(elements), sources))
    if a.pattern is not None:
        edges.append(_of_factor(a, _as_stack(a, False), b, _as_stack(b, True), left=True))
    if b.pattern is not None:
        edges.append(_of_factor(b, _as_stack(b, True), a, _as_stack(a, False), left=False))
    return [through(edges, elements)]


def _as_stack(value: Value, right: bool) -> Tensor:
    """The numbers of the elements as a stack of matrices."""
    places = numbers(value.like)
    if places.dim() == 1:
        places = places[:, None] if right else places[None]
    return places if places.dim() == 3 else places[None]


def _of_factor(value: Value, places: Tensor, other: Value, others: Tensor, left: bool) -> Edges:
    """Along the rows of a left factor, or the columns of a right one, where the other isn't 0."""
    if not left:  # (a b)^T = b^T a^T
        places, others = places.mT, others.mT
    stack, rows, _ = places.shape
    columns = others.shape[2]
    results = torch.arange(stack * rows * columns)
    results = results.view(stack, rows, columns) if left else results.view(stack, columns, rows).mT
    if other.known is not None:
        factors = (other.known != 0).flatten()[others.reshape(-1)].view(others.shape)
        which, inner, column = factors.nonzero(as_tuple=True)
        if which.numel() * rows <= MOST_MEMBERS:
            row = torch.arange(rows)[:, None]
            reached, sources = results[which, row, column], places[which, row, inner]
            return value.to(reached.flatten(), sources.flatten())
    flat = through([value.to(torch.arange(places.numel()), places.flatten())], places.numel())
    of_rows, _ = along(Value(torch.empty(places.shape, device="meta"), flat), [2])
    sources = torch.arange(stack * rows).view(stack, rows, 1).expand(stack, rows, columns)
    return Edges(of_rows, results.flatten(), sources.flatten())


def _convolution(call: Call) -> list[Pattern] | None:
    arguments = call.arguments
    image, weight = arguments["input"], arguments["weight"]
    if call.dependent() != [image] or image.like.dim() != weight.like.dim():
        return None
    options = (
        arguments["stride"],
        arguments["padding"],
        arguments["dilation"],
        arguments["transposed"],
        arguments["output_padding"],
    )
    size = image.like.shape
    groups, spatial = arguments["groups"], size[2:]
    taps = _taps(spatial, weight.like.shape[2:], options)
    count = spatial.numel()
    # Channels of a group mix.
    grouped = Value(torch.empty((size[0], groups, size[1] // groups, count), device="meta"))
    grouped.pattern = image.pattern
    of_groups, _ = along(grouped, [2])
    (output,) = call.outputs
    shape = (size[0], groups, output.shape[1] // groups, output.shape[2:].numel())
    results = torch.arange(output.numel()).view(shape)
    first = (torch.arange(size[0] * groups) * count).view(size[0], groups, 1, 1)
    edges = []
    for tap in taps:
        reached = tap >= 0
        sources = (first + tap[reached]).expand(*shape[:3], -1)
        edges.append(Edges(of_groups, results[..., reached].flatten(), sources.flatten()))
    return [through(edges, output.numel())]


def _taps(spatial: torch.Size, kernel: torch.Size, options: tuple) -> list[Tensor]:
    """For each element of the kernel, where it reads for each place of the output; -1: nowhere.

    A convolution of the places' numbers with a kernel of this element alone.
    """
    ids = (torch.arange(spatial.numel(), dtype=torch.float64) + 1).view(1, 1, *spatial)
    taps = []
    for place in itertools.product(*map(range, kernel)):
        alone = torch.zeros(1, 1, *kernel, dtype=torch.float64)
        alone[(0, 0, *place)] = 1
        moved = torch.ops.aten.convolution(ids, alone, None, *options, 1)
        taps.append(moved.round().long().flatten() - 1)
    return taps


register(_matrix_product, "mm bmm mv dot addmm baddbmm addmv")
register(_convolution, "convolution")
