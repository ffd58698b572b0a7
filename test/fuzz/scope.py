"""What a function that is being drawn can see, and where it is."""

from dataclasses import dataclass, field

import torch

from test.fuzz.program import Function
from test.fuzz.slots import Variable


class DeadEnd(Exception):
    """Nothing more can be drawn here."""


@dataclass
class Scope:
    function: Function
    variables: list[Variable]
    depth: int
    grad_modes: bool = True  # torch.no_grad() means the same to all transforms around
    hessians: bool = True
    around: "Scope | None" = None
    owned: set[int] = field(default_factory=set)  # memory made here, which may be written to
    kept: list[torch.Tensor] = field(default_factory=list)  # so that no memory is used again

    def leave_alone(self, memories: set[int]) -> None:
        """Nothing is written there from now on."""
        self.owned -= memories
        if self.around:
            self.around.leave_alone(memories)

    def value(self, name: str) -> torch.Tensor:
        return next(each.value for each in self.variables if each.name == name)

    def used(self) -> set[str]:
        return set().union(*(each.uses() for each in self.function.body))

    def sinks(self) -> list[str]:
        """The variables made here that no later statement uses, or the last one."""
        used = self.used()
        made = [name for each in self.function.body for name in each.defines]
        return [name for name in made if name not in used] or made[-1:]


def memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
