"""One function's row: who computes it, and how its parts are made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from benchmarks.peers import Peers

PLAIN, OURS, JIT = "plain", "ours", "ours, jit"
Runs = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        function: what is measured, and on what.
        plain: the form that one would write without it.
        build: makes those who compute it, by name: ``PLAIN``, ``OURS`` and some of the peers.
        is_same: do the plain form and ours compute the same? If not, there is no error to show.
    """

    function: str
    plain: str
    build: Callable[[Peers], Runs]
    is_same: bool = True


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with tanh between them."""
    layers = [(nn.Linear(a, b), nn.Tanh()) for a, b in zip(sizes, sizes[1:])]
    return nn.Sequential(*[layer for pair in layers for layer in pair][:-1])
