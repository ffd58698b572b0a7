"""Sets of inputs that the elements of a tensor depend on, as index arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Sets of one tensor with more members than this in all aren't kept: its elements depend on all.
MOST_MEMBERS = 2**25

# Of so few inputs every set is listed; of more, a set of more than half of them is full.
_FEW = 64


@dataclass
class Pattern:
    """For each element of a tensor, in row-major order, the inputs that it may depend on.

    The set of element ``i`` is ``members[starts[i]:starts[i + 1]]``, sorted; where ``full[i]``,
    it's all inputs, and no members are listed.
    """

    inputs: int
    full: Tensor
    starts: Tensor
    members: Tensor

    @property
    def elements(self) -> int:
        return self.full.numel()

    @classmethod
    def identity(cls, first: int, count: int, inputs: int) -> "Pattern":
        """Of ``count`` inputs themselves, numbered from ``first``."""
        none = torch.zeros(count, dtype=torch.bool)
        return cls(inputs, none, torch.arange(count + 1), torch.arange(first, first + count))

    @classmethod
    def of_pairs(cls, elements: Tensor, members: Tensor, full: Tensor, inputs: int) -> "Pattern":
        """Of pairs, in any order and with repetitions; sets of most inputs become full."""
        count = full.numel()
        keys = torch.unique(elements * max(inputs, 1) + members)
        elements = torch.div(keys, max(inputs, 1), rounding_mode="floor")
        members = keys - elements * inputs
        full = full | (torch.bincount(elements, minlength=count) * 2 > max(inputs, _FEW))
        listed = ~full[elements]
        elements, members = elements[listed], members[listed]
        return cls(inputs, full, _starts(torch.bincount(elements, minlength=count)), members)

    @classmethod
    def everywhere(cls, elements: int, inputs: int) -> "Pattern":
        """Every element depends on every input."""
        full = torch.ones(elements, dtype=torch.bool)
        nothing = torch.zeros(0, dtype=torch.long)
        return cls(inputs, full, torch.zeros(elements + 1, dtype=torch.long), nothing)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Elements and members, of the sets that are listed."""
        return torch.arange(self.elements).repeat_interleave(self.starts.diff()), self.members

    def everything(self) -> tuple[Tensor, Tensor]:
        """The same, of all sets: sorted by element, then by member."""
        elements, members = self.pairs()
        whole = self.full.nonzero().flatten()
        if not whole.numel():
            return elements, members
        rows = torch.cat([elements, whole.repeat_interleave(self.inputs)])
        columns = torch.cat([members, torch.arange(self.inputs).repeat(whole.numel())])
        order = (rows * self.inputs + columns).argsort()
        return rows[order], columns[order]


@dataclass
class Edges:
    """Elements of a result, and the elements of an operand that each of them depends on."""

    operand: Pattern
    results: Tensor
    sources: Tensor


def through(edges: Sequence[Edges], elements: int) -> Pattern:
    """The pattern of a result of so many elements, which depends on operands along the edges."""
    inputs = edges[0].operand.inputs
    full = torch.zeros(elements, dtype=torch.bool)
    for edge in edges:
        full[edge.results[edge.operand.full[edge.sources]]] = True
    rows, columns, members = [], [], 0
    for edge in edges:
        kept = ~full[edge.results]
        results, sources = edge.results[kept], edge.sources[kept]
        starts = edge.operand.starts
        counts = starts[sources + 1] - starts[sources]
        total = int(counts.sum())
        members += total
        if members > MOST_MEMBERS:
            return Pattern.everywhere(elements, inputs)
        # The places of all members: those of each source in turn.
        before = (starts[sources] - _starts(counts)[:-1]).repeat_interleave(counts)
        rows.append(results.repeat_interleave(counts))
        columns.append(edge.operand.members[before + torch.arange(total)])
    return Pattern.of_pairs(torch.cat(rows), torch.cat(columns), full, inputs)


def mixed(operands: Sequence[Pattern], elements: int) -> Pattern:
    """The pattern of a result whose elements depend on all elements of all operands."""
    inputs = operands[0].inputs
    if elements == 0 or any(bool(operand.full.any()) for operand in operands):
        return Pattern.everywhere(elements, inputs)
    members = torch.unique(torch.cat([operand.members for operand in operands]))
    count = members.numel()
    if count * 2 > max(inputs, _FEW) or count * elements > MOST_MEMBERS:
        return Pattern.everywhere(elements, inputs)
    none = torch.zeros(elements, dtype=torch.bool)
    starts = torch.arange(elements + 1) * count
    return Pattern(inputs, none, starts, members.repeat(elements))


def _starts(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
