"""Draws a random program from a seed.

Each statement runs on a plain tensor for each variable as it is drawn. That shows the shapes and
dtypes of what follows, and leaves out what plain torch refuses.
"""

import random
import re

import torch
import torch.nn.functional as F

from test.fuzz import nesting, operators
from test.fuzz.program import FIT, Function, Program, Statement, names_in
from test.fuzz.scope import DeadEnd, Scope, memory
from test.fuzz.slots import Slots, Variable

LARGEST = 48  # elements of a variable
REFUSED_PROGRAMS = 0.04
RANDOM_PROGRAMS = 0.06
OUTER_PROGRAMS = 0.25
WRITES = 0.15
DTYPES = {
    torch.float64, torch.float32, torch.int64, torch.int32, torch.int8, torch.bool, torch.complex128
}  # fmt: skip
REFUSALS = (RuntimeError, IndexError, ValueError, TypeError, AssertionError)
# Of these it isn't defined whether they copy: nothing that they touch is written to.
PERHAPS_A_VIEW = re.compile(
    r"reshape|contiguous|flatten|ravel|fit\(|\.(to|double|float|bool|long)\(|resolve|expand_as|split|chunk|unbind|real|imag|atleast|broadcast|nan_to_num"
)


class Generator:
    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.values = {"torch": torch, "F": F}
        exec(FIT, self.values)
        self.count = 0
        self.functions = 0
        self.random = self.draw.random() < RANDOM_PROGRAMS
        self.refused = self.draw.random() < REFUSED_PROGRAMS
        self.done = False

    def program(self, seed: int) -> Program:
        inputs = self.inputs()
        main = Function("program", [name for name, _ in inputs])
        scope = Scope(main, [self.variable(name, 0) for name, _ in inputs], 0)
        self.body(scope, self.draw.randint(0, 2), self.draw.choice([1, 1, 2, 2, 3, 3, 4]))
        main.result = ", ".join(scope.sinks()[-4:]) + ","
        outer = self.draw.random() < OUTER_PROGRAMS
        return Program(seed, inputs, main, self.refused and self.done, outer)

    # Inputs and variables.

    def inputs(self) -> list[tuple[str, str]]:
        texts = [self.real_input() for _ in range(self.draw.randint(2, 4))]
        if self.draw.random() < 0.3:
            texts.append(f"torch.randint(0, 3, {self.sizes()})")
        if self.draw.random() < 0.2:
            texts.append(f"torch.rand({self.sizes()}) > 0.5")
        if self.draw.random() < 0.12:
            texts.append(f"torch.randn({self.sizes()}, dtype=torch.complex128)")
        torch.manual_seed(0)
        for i, text in enumerate(texts):
            self.values[f"x{i}"] = eval(text, self.values)
        return [(f"x{i}", text) for i, text in enumerate(texts)]

    def sizes(self) -> tuple[int, ...]:
        rank = self.draw.choice([1, 1, 2, 2, 2, 3, 3, 4])
        sizes = [self.draw.choice([1, 2, 2, 2, 3, 3, 3, 4]) for _ in range(rank)]
        while torch.Size(sizes).numel() > LARGEST:
            sizes.pop()
        return tuple(sizes)

    def real_input(self) -> str:
        text = f"torch.randn({self.sizes()}, dtype=torch.float64)"
        layouts = [".mT", ".flip(0)", "[..., ::2]", "[..., 1:]", "[None].expand(2, {})"]
        if self.draw.random() > 0.25:
            return text
        layout = self.draw.choice(layouts).format(", ".join(["-1"] * (text.count(", ") - 0)))
        try:
            found = eval(text + layout, self.values)
        except (RuntimeError, IndexError):
            return text
        return text + layout if 0 < found.numel() <= LARGEST else text

    def variable(self, name: str, depth: int) -> Variable:
        return Variable(name, self.values[name], depth)

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def define(self, scope: Scope, value: torch.Tensor) -> str:
        name = self.name()
        self.values[name] = value
        scope.variables.append(self.variable(name, scope.depth))
        scope.kept.append(value)
        return name

    # Statements.

    def body(self, scope: Scope, steps: int, nested: int) -> None:
        at = self.draw.randint(0, steps) if nested else None
        for i in range(steps + 1):
            if i == at:
                nesting.transform(self, scope, nested - 1)
            if i < steps:
                self.statement(scope)
        if not scope.function.body:
            self.statement(scope)

    def statement(self, scope: Scope) -> None:
        slots = Slots(self.draw, scope.variables, scope.depth, scope.used())
        if self.draw.random() < WRITES and self.write(scope, slots):
            return
        for _ in range(12):
            template, a = self.template(slots)
            text = slots.fill(template, a)
            try:
                value = eval(text, self.values)
            except REFUSALS:
                if self.refused and not self.done and scope.depth:
                    self.done = True
                    name = self.name()
                    scope.function.body.append(Statement(f"{name} = {text}", ()))
                continue
            if fits(value):
                self.note_memory(scope, text, value)
                name = self.define(scope, value)
                line = f"{name} = {text}"
                plain = scope.grad_modes and not PERHAPS_A_VIEW.search(text)
                if plain and self.draw.random() < 0.02:
                    scope.owned.discard(memory(value))
                    line = f"with torch.no_grad():\n    {line}"
                scope.function.body.append(Statement(line, (name,)))
                return
        raise DeadEnd

    def template(self, slots: Slots) -> tuple[str, Variable]:
        chance = self.draw.random()
        if self.random and chance < 0.2:
            return self.draw.choice(operators.RANDOM_NUMBERS), self.real(slots)
        if chance < 0.3 and (a := slots.pick(lambda v: v.kind == "integer")):
            return self.draw.choice(operators.INTEGER), a
        if chance < 0.5 and (a := slots.pick(lambda v: v.kind == "complex")):
            tables = operators.COMPLEX_TO_COMPLEX, operators.COMPLEX_TO_REAL
            return self.draw.choice(self.draw.choice(tables)), a
        weights = [weight for weight, _ in operators.FLOAT.values()]
        _, table = self.draw.choices(list(operators.FLOAT.values()), weights)[0]
        return self.draw.choice(table), self.real(slots)

    def real(self, slots: Slots) -> Variable:
        return slots.pick(lambda v: v.kind == "float")

    def note_memory(self, scope: Scope, text: str, value: torch.Tensor) -> None:
        seen = {memory(each.value) for each in scope.variables}
        if PERHAPS_A_VIEW.search(text):
            touched = {memory(self.values[name]) for name in names_in(text)} | {memory(value)}
            scope.leave_alone(touched)
        elif memory(value) not in seen:
            scope.owned.add(memory(value))

    def write(self, scope: Scope, slots: Slots) -> bool:
        """An in-place operator on a tensor made here; one is made for it where there is none."""
        target = slots.pick(lambda v: v.kind != "boolean" and memory(v.value) in scope.owned)
        if target is None or self.draw.random() < 0.3:
            source = slots.pick(lambda v: v.kind in ("float", "integer"))
            makers = ["{a}.clone()", "torch.zeros_like({a})", "{a}.new_zeros({a}.shape)"]
            text = slots.fill(self.draw.choice(makers), source)
            value = eval(text, self.values)
            name = self.define(scope, value)
            scope.owned.add(memory(value))
            scope.function.body.append(Statement(f"{name} = {text}", (name,)))
            target = scope.variables[-1]
        source = slots.pick(lambda v: v.value.dtype == target.value.dtype)
        for _ in range(6):
            text = slots.fill(self.draw.choice(operators.IN_PLACE), source, target)
            before = target.value.clone()
            try:
                exec(text, self.values)
            except REFUSALS:
                continue
            if fits(target.value):
                scope.function.body.append(Statement(text))
                return True
            if target.value.shape != before.shape:
                raise DeadEnd
            target.value.copy_(before)
        return False


def fits(value: object) -> bool:
    if type(value) is not torch.Tensor or value.layout != torch.strided:
        return False
    if value.dtype not in DTYPES or not 0 < value.numel() <= LARGEST or value.dim() > 5:
        return False
    return bool(value.abs().max() < 1e4) if value.dtype != torch.bool else True


def generate(seed: int) -> Program:
    for attempt in range(100):
        try:
            return Generator(seed + attempt * 1_000_003).program(seed)
        except DeadEnd:
            continue
    raise AssertionError(f"nothing could be drawn from {seed}")
