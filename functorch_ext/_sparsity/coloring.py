"""Colours for the columns of a matrix: those of one colour share a product with it."""

from collections.abc import Iterable

import torch
from torch import Tensor


def column_colors(rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> Tensor:
    """A colour per column; no two columns of one colour have an entry in the same row.

    Greedy, in the given order or by descending number of entries, whichever needs fewer colours.

    Source: A. Curtis, M. Powell, J. Reid, "On the estimation of sparse Jacobian matrices", 1974;
    A. Gebremedhin, F. Manne, A. Pothen, "What color is your Jacobian?", SIAM Review 47, 2005.
    """
    order = (columns * shape[0] + rows).argsort()
    entries = _lists(rows[order], columns, shape[1])
    counts = [len(each) for each in entries]
    natural = range(shape[1])
    orders: list[Iterable[int]] = [natural]
    if len(set(counts)) > 1:
        orders.append(sorted(natural, key=lambda column: -counts[column]))
    found = [_greedy(entries, each, shape[0]) for each in orders]
    return torch.tensor(min(found, key=lambda colors: max(colors, default=0)), dtype=torch.long)


def _greedy(entries: list[list[int]], order: Iterable[int], rows: int) -> list[int]:
    used = [0] * rows  # by the columns with an entry in the row: one bit for each colour
    colors = [0] * len(entries)
    for column in order:
        forbidden = 0
        for row in entries[column]:
            forbidden |= used[row]
        bit = _lowest_free(forbidden)
        for row in entries[column]:
            used[row] |= bit
        colors[column] = bit.bit_length() - 1
    return colors


def star_colors(rows: Tensor, columns: Tensor, size: int) -> Tensor:
    """A colour per column of a symmetric matrix, of which one of each pair of entries is alone.

    No two neighbours have one colour, nor has a path of four vertices two colours only. So of the
    entries (i, j) and (j, i) one is the only one of its colour in its row. Greedy, in the given
    order.

    Source: A. Gebremedhin, A. Tarafdar, F. Manne, A. Pothen, "New acyclic and star coloring
    algorithms with application to computing Hessians", SIAM J. Sci. Comput. 29, 2007.
    """
    apart = rows != columns
    neighbours = _lists(columns[apart], rows[apart], size)
    colors = [-1] * size
    once = [0] * size  # the colours of a vertex' neighbours: one bit for each
    twice = [0] * size  # those of two neighbours and more: the vertex is a hub of the colour
    # Colours that would make a path of two colours: those of the hubs of the vertex' own colour
    # among its neighbours.
    blocked = [0] * size
    for vertex in range(size):
        forbidden = 0
        for other in neighbours[vertex]:
            # What has no colour yet shall not be a hub, or it might find none.
            taken = once[other] if colors[other] < 0 else 1 << colors[other] | blocked[other]
            forbidden |= taken
        bit = _lowest_free(forbidden)
        colors[vertex] = color = bit.bit_length() - 1
        for hub in neighbours[vertex]:
            if twice[hub] & bit:
                blocked[vertex] |= 1 << colors[hub]
            elif once[hub] & bit:
                twice[hub] |= bit
                for other in neighbours[hub]:
                    if colors[other] == color:
                        blocked[other] |= 1 << colors[hub]
            once[hub] |= bit
    return torch.tensor(colors, dtype=torch.long)


def _lowest_free(mask: int) -> int:
    return ~mask & (mask + 1)


def _lists(values: Tensor, owners: Tensor, size: int) -> list[list[int]]:
    """The values of each owner; both are sorted by owner."""
    counts = torch.bincount(owners, minlength=size).tolist()
    flat, start, lists = values.tolist(), 0, []
    for count in counts:
        lists.append(flat[start : start + count])
        start += count
    return lists
