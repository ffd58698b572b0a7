"""One case: a spoiled call, in a loop over samples in plain PyTorch and under a transform."""

import random
import re
import warnings
from typing import NamedTuple

import torch
import torch.autograd.forward_ad as forward_ad

from functorch_ext import grad, jvp, vmap
from test.bad_inputs.calls import calls
from test.bad_inputs.mutations import spoil
from test.opinfo.samples import OPERATORS, is_inexact, tensors_in
from test.oracle import CONTIGUOUS
from test.oracle import jvp as jvp_by_reverse
from test.state import assert_clean_state, live_levels

SAMPLES = 3
INTERNAL = re.compile(
    "INTERNAL ASSERT|Batching rule not implemented|please report|Please report|toPyObject|"
    "Could not run 'aten::|DeferredInit|FPGA|GenericMode|not implemented for device|"
    "Unknown device|vector::|std::|bad optional|unordered_map|free_list|\\?\\?\\?"
)

VALID = "valid"  # plain PyTorch takes it, and so does the transform
REFUSED = "refused"  # neither does
STRICTER = "refused though valid"
ACCEPTED = "accepted"
CRASH = "crash"
PLAIN_CRASH = "plain PyTorch crashes"
HANG = "hang"
MESSAGE = "internal message"
STATE = "state left"
FAULTS = (ACCEPTED, CRASH, HANG, MESSAGE, STATE)


class Case(NamedTuple):
    """An operator of the database and a number, which is the seed of all else."""

    name: str
    number: int

    def __str__(self):
        return f"{self.name}/{self.number}"


class Verdict(NamedTuple):
    outcome: str
    case: str
    transform: str = ""
    done: str = ""  # to the call
    plain: str = ""  # what the loop said
    ours: str = ""


def message_of(error):
    return f"{type(error).__name__}: {error}"


class Problem(NamedTuple):
    """A function of tensors, the draws of these, and which are batched, and where."""

    function: object
    draws: list
    in_dims: tuple
    done: str
    transform: str

    def sample(self, index):
        """The tensors of one sample, each with memory of its own."""
        return [
            self.draws[0 if dim is None else index][position].clone(memory_format=CONTIGUOUS)
            for position, dim in enumerate(self.in_dims)
        ]

    def stacked(self):
        return [
            self.draws[0][position].clone()
            if dim is None
            else torch.stack([tensors[position] for tensors in self.draws[:SAMPLES]], dim)
            for position, dim in enumerate(self.in_dims)
        ]


def make_problem(case):
    rng = random.Random(str(case))
    op = OPERATORS[case.name]
    found = calls(case.name)
    if not found:
        return None
    done, call = spoil(rng.choice(found), rng)
    variants = [op.op] * 4 + ([op.inplace_variant] if op.inplace_variant else [])
    variant = rng.choice(variants)

    def function(*tensors):
        args, kwargs = call.arguments(tensors)
        if variant is not op.op and isinstance(args[0], torch.Tensor):
            args = (args[0].clone(), *args[1:])
        return tensors_in(variant(*args, **kwargs))

    count = len(call.draws[0])
    dims = [rng.choice([0, 0, 0, -1, None]) for _ in range(count)]
    if rng.random() < 0.6:
        dims = [0] * count
    if all(dim is None for dim in dims):
        dims[rng.randrange(count)] = 0
    transform = rng.choice(list(TRANSFORMS))
    in_place = "" if variant is op.op else "in place, "
    return Problem(function, call.draws, tuple(dims), in_place + done, transform)


def over_samples(function, problem):
    return vmap(function, problem.in_dims, randomness="different")


def mapped(problem):
    return over_samples(problem.function, problem)(*problem.stacked())


def mapped_twice(problem):
    outer = tuple(None if dim is None else 0 for dim in problem.in_dims)
    inner = over_samples(problem.function, problem)
    args = [
        x if dim is None else torch.stack([x, x])
        for x, dim in zip(problem.stacked(), outer, strict=True)
    ]
    return vmap(inner, outer, randomness="different")(*args)


def by_inexact(transform):
    """transform(function of the inexact arguments alone, these)."""

    def transformed(function):
        def of_all(*args):
            positions = [i for i, x in enumerate(args) if is_inexact(x)]

            def of_inexact(*values):
                full = list(args)
                for position, value in zip(positions, values, strict=True):
                    full[position] = value
                return function(*full)

            values = tuple(args[i] for i in positions)
            return transform(of_inexact, values) if values else function(*args)

        return of_all

    return transformed


def total(outputs):
    parts = [x.abs().sum() for x in outputs if is_inexact(x)]
    return sum(parts) if parts else None


def gradient(function, values):
    def scalar(*values):
        found = total(function(*values))
        return values[0].abs().sum() * 0 if found is None else found

    return grad(scalar, tuple(range(len(values))))(*values)


def tangents(function, values):
    return jvp(lambda *values: tuple(function(*values)) or values[:1], values, values)


def mapped_grad(problem):
    return over_samples(by_inexact(gradient)(problem.function), problem)(*problem.stacked())


def mapped_jvp(problem):
    return over_samples(by_inexact(tangents)(problem.function), problem)(*problem.stacked())


def of_one_sample(transform, index=0):
    def run(problem):
        return by_inexact(transform)(problem.function)(*problem.sample(index))

    return run


TRANSFORMS = {
    "vmap": mapped,
    "vmap(vmap)": mapped_twice,
    "vmap(grad)": mapped_grad,
    "vmap(jvp)": mapped_jvp,
    "grad": of_one_sample(gradient),
    "jvp": of_one_sample(tangents),
}


def first_error(problem, run):
    """What run(index) of a sample raises first, as a message; None if nothing."""
    samples = SAMPLES if problem.transform.startswith("vmap") else 1
    for index in range(samples):
        try:
            run(index)
        except Exception as error:
            return message_of(error)
    return None


def refusal(problem):
    """What plain PyTorch says of the first sample that it refuses; None if it takes all."""
    return first_error(problem, lambda index: problem.function(*problem.sample(index)))


def plain_gradient(function, values):
    leaves = [x.requires_grad_() for x in values]
    output = total(function(*leaves))
    if output is not None and output.requires_grad:
        torch.autograd.grad(output, leaves, allow_unused=True)


def plain_tangents(function, values):
    with forward_ad.dual_level():
        function(*(forward_ad.make_dual(x, x.clone()) for x in values))


def tangents_by_reverse(function, values):
    def of_vector(flat):
        parts = flat.split([x.numel() for x in values])
        found = function(*(part.view_as(x) for part, x in zip(parts, values, strict=True)))
        return torch.cat([x.flatten() for x in found if is_inexact(x)])

    flat = torch.cat([x.flatten() for x in values])
    jvp_by_reverse(of_vector, flat, flat)


def error_of_derivative(problem, transform):
    return first_error(problem, lambda index: of_one_sample(transform, index)(problem))


def refusal_of_derivative(problem):
    """What plain PyTorch says of the derivative of what it takes, in all of its ways."""
    if "grad" in problem.transform:
        return error_of_derivative(problem, plain_gradient)
    if "jvp" in problem.transform:
        message = error_of_derivative(problem, plain_tangents)
        return message and error_of_derivative(problem, tangents_by_reverse) and message
    return None


def forward_mode_takes(problem):
    """Does plain PyTorch take with a tangent what it refuses without? Some of its formulas do."""
    return error_of_derivative(problem, plain_tangents) is None


def run_plain(case):
    """Plain PyTorch alone, with its backward pass where a gradient is asked for: does it crash?"""
    problem = make_problem(case)
    plain = refusal(problem)
    if plain is None:
        plain = refusal_of_derivative(problem)
    return Verdict(VALID if plain is None else REFUSED, str(case), plain=plain or "")


def judge(case, stage=lambda name: None):
    """The Verdict; stage(transform) is called before the transform runs."""
    warnings.simplefilter("ignore")
    torch.default_generator.manual_seed(case.number)
    problem = make_problem(case)
    if problem is None:
        return Verdict("no tensors", str(case))

    def verdict(outcome, ours=""):
        return Verdict(outcome, str(case), problem.transform, problem.done, plain or "", ours)

    plain = refusal(problem)
    levels = live_levels()
    stage(problem.transform)
    ours = None
    try:
        TRANSFORMS[problem.transform](problem)
    except Exception as error:
        ours = message_of(error)
        error.with_traceback(None)
    try:
        assert_clean_state(levels)
    except Exception as error:
        return verdict(STATE, message_of(error))
    if ours and plain is None:
        plain = refusal_of_derivative(problem)
    if ours and INTERNAL.search(ours) and not INTERNAL.search(plain or ""):
        return verdict(MESSAGE, ours)
    if plain is None:
        return verdict(VALID if ours is None else STRICTER, ours or "")
    if ours is None and "jvp" in problem.transform and forward_mode_takes(problem):
        return verdict(VALID)
    return verdict(ACCEPTED if ours is None else REFUSED, ours or "")
