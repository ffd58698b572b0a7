"""Which arguments are batched, and where: the ways to stack the draws of a problem."""

import itertools

import torch

# The samples of one vmap, and of a vmap inside a vmap.
SIZES = {1: (3,), 2: (2, 2)}
ALONE = 4  # so many arguments at most are batched alone


def single(count, deep):
    """in_dims for `count` arguments."""
    front, end = (0,) * count, (-1,) * count
    alone = [tuple(-1 if i == j else None for i in range(count)) for j in range(min(count, ALONE))]
    others = [tuple(None if i == j else -(i % 2) for i in range(count)) for j in (0, -1 % count)]
    if count == 1:
        return [front, end]
    return [front, end, *alone, *others] if deep else [front, alone[0], others[0]]


def nested(count, deep):
    """Pairs of in_dims: of the outer vmap, and of the inner one."""
    both = (0,) * count, (-1,) * count
    swapped = (-1,) * count, (0,) * count
    if count == 1:
        return [both, swapped] if deep else [both]
    first = tuple(-1 if i == 0 else None for i in range(count))
    others = tuple(None if i == 0 else 0 for i in range(count))
    apart = [(first, others), (others, first)]
    return (
        [both, swapped, *apart, (first, both[1]), (both[0], others)] if deep else [both, apart[0]]
    )


def variants(count, levels, deep):
    """All ways as tuples of in_dims, the outermost vmap first."""
    return [(dims,) for dims in single(count, deep)] if levels == 1 else nested(count, deep)


def in_front(variant):
    """The same arguments, batched in front."""
    return tuple(tuple(None if dim is None else 0 for dim in dims) for dims in variant)


def pick(coordinates, dims, sizes):
    """Which draw of an argument the sample at these coordinates has."""
    index = 0
    for coordinate, dim, size in zip(coordinates, dims, sizes, strict=True):
        index = index if dim is None else index * size + coordinate
    return index


def samples(draws, variant):
    """The arguments of each sample, one after the other."""
    sizes = SIZES[len(variant)]
    for coordinates in itertools.product(*map(range, sizes)):
        indices = [pick(coordinates, dims, sizes) for dims in zip(*variant, strict=True)]
        yield [draws[index][position] for position, index in enumerate(indices)]


def stack(draws, variant):
    """The batched arguments."""
    sizes = SIZES[len(variant)]

    def physical(column, dims, sizes, index):
        if not dims:
            return column[index]
        if dims[0] is None:
            return physical(column, dims[1:], sizes[1:], index)
        parts = [
            physical(column, dims[1:], sizes[1:], index * sizes[0] + i) for i in range(sizes[0])
        ]
        return torch.stack(parts, dims[0])

    columns = zip(*draws, strict=True)
    return [
        physical(column, dims, sizes, 0)
        for column, dims in zip(columns, zip(*variant, strict=True), strict=True)
    ]
