"""Calls of operators: the database's samples as trees whose tensors are slots for several draws."""

import functools
from typing import NamedTuple

import torch
from torch.utils import _pytree as pytree

from test.opinfo.samples import OPERATORS, default_dtype, draws_of, groups

SAMPLES = 12  # per operator


class Slot(NamedTuple):
    """Stands in a call for one of its tensors."""

    position: int


class Call(NamedTuple):
    """The arguments of an operator: `leaves` with a Slot for each tensor, and the tensors of each
    draw. A list of numbers is one leaf."""

    leaves: tuple
    spec: object
    draws: tuple

    def arguments(self, tensors):
        """(args, kwargs) with these tensors in the slots."""
        full = [fill(leaf, tensors) for leaf in self.leaves]
        return pytree.tree_unflatten(full, self.spec)


def fill(leaf, tensors):
    return tensors[leaf.position] if isinstance(leaf, Slot) else leaf


def is_number_list(node):
    return isinstance(node, (list, tuple)) and all(type(x) in (int, float, bool) for x in node)


def is_leaf(node):
    return isinstance(node, Slot) or is_number_list(node)


def make_call(flat):
    leaves, spec = flat[0]
    slots = iter(range(len(leaves)))
    marked = [Slot(next(slots)) if isinstance(x, torch.Tensor) else x for x in leaves]
    first, args, kwargs = pytree.tree_unflatten(marked, spec)
    leaves, spec = pytree.tree_flatten(((first, *args), kwargs), is_leaf=is_leaf)
    return Call(tuple(leaves), spec, draws_of(flat))


@functools.cache
def calls(name):
    """The calls of an operator that have a tensor."""
    op = OPERATORS[name]
    chosen, _ = groups(op, default_dtype(op), SAMPLES)
    found = [make_call(flat) for flat, _ in chosen]
    return [call for call in found if call.draws[0]]
