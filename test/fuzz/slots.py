"""What stands for the fields of a template: variables in reach that fit, numbers, dimensions."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

FIELD = re.compile(r"\{(\w+)\}")


@dataclass
class Variable:
    """A variable of the program and a value of its shape and dtype, for one sample."""

    name: str
    value: torch.Tensor
    depth: int  # of the function that defines it

    @property
    def kind(self) -> str:
        if self.value.dtype == torch.bool:
            return "boolean"
        if self.value.is_complex():
            return "complex"
        return "float" if self.value.is_floating_point() else "integer"


class Slots:
    """Fills templates from the variables that a function sees."""

    def __init__(
        self, draw: random.Random, variables: list[Variable], depth: int, used: set[str]
    ) -> None:
        self.draw = draw
        self.variables = variables
        self.depth = depth
        self.used = used

    def pick(self, fits: Callable[[Variable], bool]) -> Variable | None:
        """A variable that fits; the function's own are likelier, above all those not used yet."""
        found = [each for each in self.variables if fits(each)]
        if not found:
            return None
        weights = [
            1 if each.depth < self.depth else 4 if each.name in self.used else 12 for each in found
        ]
        return self.draw.choices(found, weights)[0]

    def fill(self, template: str, a: Variable, written: Variable | None = None) -> str:
        field = {
            "a": a,
            "w": written,
        }
        self.target = written.value if written else None
        self.a = a.value
        self.first = a.name

        def put(match: re.Match) -> str:
            name = match[1]
            if field.get(name):
                return field[name].name
            if re.fullmatch(r"[mvt]\d+", name):
                return self.shaped([int(digit) for digit in name[1:]])
            return str(getattr(self, name)())

        return FIELD.sub(put, template)

    # Other variables.

    def named(self, fits: Callable[[Variable], bool]) -> str:
        return found.name if (found := self.pick(fits)) else self.first

    def b(self) -> str:
        """Broadcasts with a."""
        return self.named(lambda v: v.kind == "float" and _broadcasts(v.value.shape, self.a.shape))

    def same(self) -> str:
        return self.named(lambda v: v.kind == "float" and v.value.shape == self.a.shape)

    def int(self) -> str:
        found = self.pick(
            lambda v: v.kind == "integer" and _broadcasts(v.value.shape, self.a.shape)
        )
        return found.name if found else str(self.draw.choice([1, 2, 3]))

    def boolean(self) -> str:
        found = self.pick(
            lambda v: v.kind == "boolean" and _broadcasts(v.value.shape, self.a.shape)
        )
        return found.name if found else f"({self.first}>{self.number()})"

    bool = boolean

    def shaped(self, shape: list[int]) -> str:
        """Of a given shape: a variable, or one that is made to fit."""
        found = self.pick(lambda v: v.kind == "float" and list(v.value.shape) == shape)
        if found and self.draw.random() < 0.7:
            return found.name
        some = self.named(lambda v: v.kind == "float" and v.value.numel() > 0)
        return f"fit({some},{','.join(map(str, shape))})"

    def inv(self) -> str:
        """A matrix that isn't singular."""
        return f"({self.shaped([2, 2])}.tanh()+torch.tensor([[3.0,0.2],[-0.1,2.5]],dtype=torch.float64))"

    def spd(self) -> str:
        square = self.shaped([2, 2])
        return f"({square}@{square}.mT+torch.tensor([[1.0,0.2],[0.2,2.0]],dtype=torch.float64))"

    # Numbers.

    def number(self) -> str:
        return self.draw.choice(["0.5", "2", "-1.5", "0.3", "1", "3"])

    def dim(self) -> int:
        rank = max(self.a.dim(), 1)
        return self.draw.randrange(-rank, rank)

    def smalldim(self) -> int:
        return self.draw.choice([0, -1, 1])

    def dim0(self) -> int:
        return 0

    def dims(self) -> str:
        rank = max(self.a.dim(), 1)
        count = self.draw.randint(1, rank)
        dims = self.draw.sample(range(rank), count)
        return f"({','.join(str(d - rank * self.draw.randrange(2)) for d in dims)},)"

    def perm(self) -> str:
        return ",".join(map(str, self.draw.sample(range(self.a.dim()), self.a.dim())))

    def keep(self) -> bool:
        return self.draw.random() < 0.5

    def at(self) -> int:
        return self.draw.choice([0, -1, 0, 1])

    def shape(self) -> str:
        return str(tuple(self.draw.choice([1, 2, 3]) for _ in range(self.draw.randint(1, 2))))

    # Indices.

    def _index(self, size: int) -> str:
        found = self.pick(lambda v: v.kind == "integer" and v.value.dim() <= 2)
        if found and self.draw.random() < 0.7 and found.value.dtype in (torch.int64, torch.int32):
            return f"({found.name}.reshape(-1)[:3]%{max(size, 1)})"
        return self.draw.choice(["torch.tensor([0,-1])", "torch.tensor([0])", "torch.arange(1)"])

    def index(self) -> str:
        return self._index(self.a.shape[0] if self.a.dim() else 1)

    index0 = index

    def lastindex(self) -> str:
        return self._index(self.a.shape[-1] if self.a.dim() else 1)

    def class2(self) -> str:
        return self._classes([2])

    def class24(self) -> str:
        return self._classes([2, 4])

    def _classes(self, shape: list[int]) -> str:
        found = self.pick(lambda v: v.kind == "integer" and v.value.numel() > 0)
        if found:
            return f"(fit({found.name},{','.join(map(str, shape))}).long()%2)"
        return f"torch.ones({shape},dtype=torch.long)"

    # What is written, and where: of the shape of the target, or of a part of it.

    def into(self) -> str:
        shape = self.target.shape
        return self.named(
            lambda v: v.value.dtype == self.target.dtype and _expands(v.value.shape, shape)
        )

    def part(self) -> str:
        shape = self.target.shape[1:]
        return self.named(
            lambda v: v.value.dtype == self.target.dtype and _expands(v.value.shape, shape)
        )

    def wat(self) -> int:
        return self.draw.choice([0, -1])

    def windex(self) -> str:
        # Each position once: which of several writes to one stays is undefined.
        size = self.target.shape[0] if self.target.dim() else 1
        found = self.pick(lambda v: v.kind == "integer" and v.value.dtype == torch.int64)
        if found and self.draw.random() < 0.7:
            first = f"{found.name}.reshape(-1)[:1].sum()"
            return f"(({first}+torch.arange({min(size, 2)}))%{max(size, 1)})"
        return self.draw.choice(["torch.tensor([-1])", f"torch.arange({min(size, 2)})"])

    def wbool(self) -> str:
        found = self.pick(lambda v: v.kind == "boolean" and v.value.shape == self.target.shape)
        return found.name if found else f"({self.written_name()}>0.1)"

    def written_name(self) -> str:
        return next(v.name for v in self.variables if v.value is self.target)


def _broadcasts(one: torch.Size, other: torch.Size) -> bool:
    return all(m == n or m == 1 or n == 1 for m, n in zip(reversed(one), reversed(other)))


def _expands(one: torch.Size, other: torch.Size) -> bool:
    pairs = zip(reversed(one), reversed(other))
    return len(one) <= len(other) and all(m == n or m == 1 for m, n in pairs)
