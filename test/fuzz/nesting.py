"""Draws a transform of an inner function, and its call."""

import torch

from test.fuzz.program import Function, Statement
from test.fuzz.scope import DeadEnd, Scope, memory
from test.fuzz.slots import Slots, Variable

LOSSES = {
    "float": ["{v}.sum()", "{v}.sin().sum()", "{v}.square().mean()", "({v}*{v}.cos()).sum()"],
    "complex": ["({v}*{v}.conj()).real.sum()", "{v}.real.sin().sum()+{v}.imag.sum()"],
}
SMALL = 6  # elements of what a Jacobian has rows or columns for


def transform(gen, scope, nested):
    """Adds a call of a random transform to the function of the scope."""
    kinds = ["vmap"] * 8 + ["grad"] * 3 + ["grad_and_value", "vjp", "jvp", "jvp", "linearize"]
    kinds += ["jacrev", "jacfwd", "functionalize"]
    if scope.hessians and not gen.random:
        kinds.append("hessian")
    kind = gen.draw.choice(kinds)
    Call(gen, scope, nested, kind).add()


class Call:
    """One call being drawn."""

    def __init__(self, gen, scope, nested, kind):
        self.gen, self.scope, self.nested, self.kind = gen, scope, nested, kind
        self.draw = gen.draw
        self.slots = Slots(gen.draw, scope.variables, scope.depth, scope.used())
        gen.functions += 1
        self.function = Function(f"f{gen.functions}", [])
        self.names: list[str] = []  # of the arguments

    def add(self):
        getattr(self, self.kind)()

    # The inner function.

    def inner(self, arguments: list[Variable], samples: list[torch.Tensor], steps=None):
        """Draws the body of a function of the samples."""
        gen, outer = self.gen, self.scope
        self.names = [each.name for each in arguments]
        forward = self.kind in ("jvp", "linearize", "jacfwd", "hessian")
        scope = Scope(
            self.function,
            list(outer.variables),
            outer.depth + 1,
            outer.grad_modes and not forward,
            outer.hessians and self.kind not in ("hessian", "jacfwd", "jacrev"),
            outer,
        )
        for sample in samples:
            self.function.parameters.append(gen.define(scope, sample))
        if steps is None:
            steps = self.draw.randint(1, 3) if self.nested else self.draw.randint(2, 6)
        gen.body(scope, steps, self.nested)
        # A result may be a view of an argument, or not.
        outer.leave_alone({memory(each.value) for each in scope.variables})
        return scope

    def call(self, options=""):
        return f"{self.kind}({self.function.name}{options})({', '.join(self.names)})"

    def finish(self, text, values):
        """Adds the statement `{} = text`, which defines a variable per value."""
        names = [self.gen.define(self.scope, value) for value in values]
        line = text.format(", ".join(names)) if "{}" in text else f"{', '.join(names)} = {text}"
        self.scope.function.body.append(Statement(line, tuple(names), self.function))
        return names

    def results(self, scope, kinds, most):
        """What the inner function returns: some of what it made."""
        names = [name for name in scope.sinks() if kind_of(scope.value(name)) in kinds]
        names = names or [
            each.name
            for each in scope.variables
            if each.depth == scope.depth and each.kind in kinds
        ]
        if not names:
            raise DeadEnd
        return names[-most:]

    def loss(self, scope):
        names = self.results(scope, ("float", "complex"), 4)
        terms = [
            self.draw.choice(LOSSES[kind_of(scope.value(name))]).format(v=name) for name in names
        ]
        return " + ".join(terms)

    # Arguments.

    def differentiable(self, most=24, kinds=("float", "complex")):
        found = self.slots.pick(lambda v: v.kind in kinds and v.value.numel() <= most)
        if found:
            return found
        source = self.slots.pick(lambda v: v.kind == "float")
        text = f"{source.name}.reshape(-1)[:3]"
        value = eval(text, self.gen.values)
        self.gen.note_memory(self.scope, text, value)
        name = self.gen.define(self.scope, value)
        self.scope.function.body.append(Statement(f"{name} = {text}", (name,)))
        return self.scope.variables[-1]

    def others(self):
        """More arguments, of any kind."""
        count = self.draw.choice([0, 0, 1])
        return [found for _ in range(count) if (found := self.slots.pick(lambda v: True))]

    def fresh(self, value):
        return torch.randn_like(value, memory_format=torch.contiguous_format)

    # The transforms.

    def vmap(self):
        first = self.slots.pick(lambda v: v.value.dim() > 0 and v.value.numel() > 0)
        if first is None:
            raise DeadEnd
        dim = self.draw.randrange(first.value.dim())
        size = first.value.shape[dim]
        arguments = [(first, dim)]
        for _ in range(self.draw.choice([0, 1, 1, 2])):
            other = self.slots.pick(lambda v: True)
            fitting = [i for i, n in enumerate(other.value.shape) if n == size]
            mapped = fitting and self.draw.random() < 0.75
            arguments.append((other, self.draw.choice(fitting) if mapped else None))
        self.draw.shuffle(arguments)
        samples = [v.value if d is None else v.value.select(d, 0) for v, d in arguments]
        scope = self.inner([v for v, _ in arguments], samples)
        results = self.results(scope, ("float", "complex", "integer", "boolean"), 3)
        self.function.result = ", ".join(results)
        dims = [
            d if d is None or self.draw.random() < 0.6 else d - v.value.dim() for v, d in arguments
        ]
        options = (
            "" if set(dims) == {0} and self.draw.random() < 0.5 else f", in_dims={tuple(dims)}"
        )
        if len(dims) == 1 and dims[0]:
            options = f", in_dims={dims[0]}"
        out_dims, values = [], []
        for name in results:
            value = scope.value(name)
            out = self.draw.choice([0, 0, self.draw.randint(-value.dim() - 1, value.dim())])
            stacked = torch.stack([value] * size, out)
            fresh = stacked.is_floating_point() and stacked.dtype == torch.float64
            out_dims.append(out)
            values.append(self.fresh(stacked) if fresh else stacked)
        if any(out_dims):
            options += f", out_dims={tuple(out_dims) if len(out_dims) > 1 else out_dims[0]}"
        if self.gen.random:
            options += ", randomness='same'"
        elif self.draw.random() < 0.08:
            options += f", chunk_size={self.draw.choice([1, 2])}"
        self.finish(self.call(options), values)

    def functionalize(self):
        arguments = [self.differentiable(), *self.others()]
        scope = self.inner(arguments, [each.value for each in arguments])
        results = self.results(scope, ("float", "complex", "integer", "boolean"), 2)
        self.function.result = ", ".join(results)
        remove = self.draw.choice(["", ", remove='mutations_and_views'"])
        self.finish(self.call(remove), [scope.value(name).clone() for name in results])

    def grad(self):
        arguments = [self.differentiable()]
        both = self.draw.random() < 0.3
        if both:
            arguments.append(self.differentiable())
        arguments += self.others()
        scope = self.inner(arguments, [each.value for each in arguments])
        self.function.result = self.loss(scope)
        options = ", argnums=(0, 1)" if both else ""
        values = [self.fresh(each.value) for each in arguments[: 1 + both]]
        targets = "({}, {})" if both else "{}"
        names = [self.gen.name() for _ in values]
        targets = targets.format(*names)
        aux = self.draw.random() < 0.2 and self.results(scope, ("float", "integer"), 1)
        if self.kind == "grad_and_value":
            names.append(self.gen.name())
            values.append(torch.randn((), dtype=torch.float64))
            targets += f", {names[-1]}"
        elif aux:
            names.append(self.gen.name())
            values.append(scope.value(aux[0]).clone())
            self.function.result += f", {aux[0]}"
            targets += f", {names[-1]}"
            options += ", has_aux=True"
        self.adopt(f"{targets} = {self.call(options)}", names, values)

    grad_and_value = grad

    def adopt(self, text, names, values):
        for name, value in zip(names, values, strict=True):
            self.gen.values[name] = value
            self.scope.variables.append(self.gen.variable(name, self.scope.depth))
            self.scope.kept.append(value)
        self.scope.function.body.append(Statement(text, tuple(names), self.function))

    def several(self, most=24):
        """One or two arguments to differentiate by, and the inner function's one output."""
        arguments = [self.differentiable(most) for _ in range(self.draw.choice([1, 1, 2]))]
        scope = self.inner(arguments, [each.value for each in arguments])
        self.function.result = name = self.results(scope, ("float", "complex"), 1)[0]
        return arguments, scope.value(name)

    def direction(self, name, value):
        """A tangent or cotangent of a value."""
        other = self.slots.pick(
            lambda v: v.value.dtype == value.dtype and v.value.shape == value.shape
        )
        choices = [f"{name}.cos()", f"torch.ones_like({name})"] + [other.name] * 2 if other else []
        return self.draw.choice(choices or [f"{name}.cos()"])

    def vjp(self):
        arguments, output = self.several()
        primal = self.gen.name()
        names = [self.gen.name() for _ in arguments]
        given = self.direction(primal, output)
        pull = f"pull_{self.function.name}"
        text = (
            f"{primal}, {pull} = vjp({self.function.name}, {', '.join(self.names)})\n"
            f"{', '.join(names)}{',' if len(names) == 1 else ''} = {pull}({given})"
        )
        values = [self.fresh(output)] + [self.fresh(each.value) for each in arguments]
        self.adopt(text, [primal, *names], values)

    def jvp(self):
        arguments, output = self.several()
        primal, tangent = self.gen.name(), self.gen.name()
        given = [self.direction(each.name, each.value) for each in arguments]
        primals = ", ".join(self.names)
        text = (
            f"{primal}, {tangent} = jvp({self.function.name}, ({primals},), ({', '.join(given)},))"
        )
        self.adopt(text, [primal, tangent], [self.fresh(output), self.fresh(output)])

    def linearize(self):
        arguments, output = self.several()
        primal, tangent = self.gen.name(), self.gen.name()
        given = [self.direction(each.name, each.value) for each in arguments]
        push = f"push_{self.function.name}"
        text = (
            f"{primal}, {push} = linearize({self.function.name}, {', '.join(self.names)})\n"
            f"{tangent} = {push}({', '.join(given)})"
        )
        self.adopt(text, [primal, tangent], [self.fresh(output), self.fresh(output)])

    def jacrev(self):
        argument = self.differentiable(SMALL, ("float",))
        arguments = [argument, *self.others()]
        scope = self.inner(arguments, [each.value for each in arguments])
        name = self.results(scope, ("float",), 1)[0]
        output = scope.value(name)
        self.function.result = name
        if output.numel() > SMALL:
            output = output.sum(-1) if output[..., 0].numel() <= SMALL else output.sum()
            self.function.result += ".sum(-1)" if output.dim() else ".sum()"
        options = ""
        if self.gen.random and self.kind == "jacfwd":
            options = ", randomness='same'"
        elif self.draw.random() < 0.1 and not self.gen.random:
            options = ", chunk_size=2"
        shape = output.shape + argument.value.shape
        value = torch.randn(shape, dtype=output.dtype)
        self.finish(self.call(options), [value])

    jacfwd = jacrev

    def hessian(self):
        argument = self.differentiable(4, ("float",))
        arguments = [argument, *self.others()]
        scope = self.inner(arguments, [each.value for each in arguments])
        self.function.result = self.loss(scope)
        shape = argument.value.shape * 2
        self.finish(self.call(), [torch.randn(shape, dtype=torch.float64)])


def kind_of(tensor: torch.Tensor) -> str:
    return Variable("", tensor, 0).kind
