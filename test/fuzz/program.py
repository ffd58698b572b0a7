"""A random program as a tree of functions and statements, and as runnable Python."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

VARIABLE = re.compile(r"\b[vx]\d+\b")
FIT = '''
def fit(x, *shape):
    """The elements of x, repeated or cut off, in a given shape."""
    count = torch.Size(shape).numel()
    return x.reshape(-1).repeat(count // x.numel() + 1)[:count].reshape(shape)

'''


def names_in(text: str) -> set[str]:
    return set(VARIABLE.findall(text))


@dataclass
class Statement:
    """Some lines of code, and the variables that they define; a transform of `inner`, perhaps."""

    text: str
    defines: tuple[str, ...] = ()
    inner: "Function | None" = None

    def uses(self) -> set[str]:
        used = names_in(self.text) - set(self.defines)
        return used | (self.inner.captures() if self.inner else set())

    def lines(self) -> Iterator[str]:
        if self.inner:
            yield from self.inner.lines()
        yield from self.text.splitlines()


@dataclass
class Function:
    name: str
    parameters: list[str]
    body: list[Statement] = field(default_factory=list)
    result: str = ""

    def captures(self) -> set[str]:
        """The variables from outside."""
        used = set(names_in(self.result)).union(*(each.uses() for each in self.body))
        return used - set(self.parameters).union(*(each.defines for each in self.body))

    def lines(self) -> Iterator[str]:
        yield f"def {self.name}({', '.join(self.parameters)}):"
        for statement in self.body:
            yield from (f"    {line}" for line in statement.lines())
        yield f"    return {self.result}"


@dataclass
class Program:
    """What `main` computes of the inputs, each of which is an expression."""

    seed: int
    inputs: list[tuple[str, str]]
    main: Function
    refused: bool = False  # plain torch refuses its last statement
    requires_grad: bool = False  # the inputs do, and plain autograd differentiates all of it

    def source(self) -> str:
        """Defines inputs() and program(*inputs)."""
        values = ", ".join(text for _, text in self.inputs)
        body = "\n".join(self.main.lines())
        fit = FIT if "fit(" in body else ""
        return f"""{fit}
def inputs():
    torch.manual_seed({self.seed})
    return ({values},)


{body}
"""

    def runnable(self) -> str:
        """The whole program, to be pasted into an interpreter."""
        lines = [
            "import torch, torch.nn.functional as F; from functorch_ext import *",
            self.source(),
        ]
        if self.requires_grad:
            lines += [
                "given = [x.requires_grad_() if x.is_floating_point() else x for x in inputs()]",
                "outputs = program(*given)",
                "total = sum(y.sum() for y in outputs if y.requires_grad)",
                "print(torch.autograd.grad(total, [x for x in given if x.requires_grad],"
                " materialize_grads=True))",
            ]
        else:
            lines.append("print(program(*inputs()))")
        return "\n".join(lines) + "\n"
