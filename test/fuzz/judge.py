"""Runs a program with functorch_ext and with loops, and compares."""

import gc
import math
import warnings
import weakref
from dataclasses import dataclass
from unittest import mock

import torch
import torch.nn.functional as F
from torch.utils import _pytree as pytree

import functorch_ext
from test import oracle as loops
from test.fuzz import oracle
from test.fuzz.program import Program
from test.fuzz.refusals import is_refusal
from test.fuzz.rounding import RandomRounding
from test.state import assert_clean_state, live_levels

RIGHT = "right"
LOOP = "right, in a loop"
REFUSED = "refused"  # with an error that says why
UNJUDGED = "unjudged"  # plain torch refuses it too, or its answer hangs on the last digits
WRONG = "wrong"
ERROR = "error"  # one that isn't expected
ACCEPTED = "accepted"  # though plain torch refuses it
STATE = "state"  # a transform left something behind
CRASH = "crash"
BAD = (WRONG, ERROR, ACCEPTED, STATE, CRASH)

TOLERANCE = 1e-7
LOW_PRECISION = 1e-3
ROUNDINGS = 3


@dataclass
class Verdict:
    kind: str
    message: str = ""

    def same_as(self, other: "Verdict") -> bool:
        """Whether the two are the same failure."""
        same = self.kind != ERROR or self.message[:50] == other.message[:50]
        return self.kind == other.kind and same


def judge(program: Program, transforms=functorch_ext) -> Verdict:
    body = "\n".join(program.main.lines())
    code = compile(program.source(), f"<seed {program.seed}>", "exec")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = run(program, code, oracle)
        except Exception as error:
            return refused_by_torch(program, code, transforms, error)
    levels = live_levels()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            actual = run(program, code, transforms)
        except Exception as error:
            verdict = Verdict(
                REFUSED if is_refusal(error, body) else ERROR, f"{type(error).__name__}: {error}"
            )
            forget_frames(error)
        else:
            verdict = compare(program, code, expected, actual)
            del actual
    if verdict.kind == RIGHT:
        loops = [each for each in caught if each.category is functorch_ext.FallbackWarning]
        if loops:
            verdict = Verdict(LOOP, str(loops[0].message))
    if verdict.kind in BAD:
        return verdict
    left = state(levels)
    return left if left and not leaks_in_plain_torch(program, code) else verdict


def refused_by_torch(program: Program, code, transforms, error: Exception) -> Verdict:
    message = f"{type(error).__name__}: {error}"
    if not program.refused:
        return Verdict(UNJUDGED, message)
    levels = live_levels()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run(program, code, transforms)
        except Exception as raised:
            forget_frames(raised)
            return state(levels) or Verdict(REFUSED, "as plain torch refuses it")
    return Verdict(ACCEPTED, message)


def forget_frames(error: BaseException | None) -> None:
    """Tracebacks hold frames, and frames tensors."""
    while error:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def state(levels: int) -> Verdict | None:
    try:
        assert_clean_state(levels)
    except AssertionError as error:
        return Verdict(STATE, str(error))
    return None


def leaks_in_plain_torch(program: Program, code) -> bool:
    """Whether plain autograd leaves a cycle behind, as `y.mul_(y)` does."""
    leaves = weakref.WeakSet()

    def private(x):
        leaves.add(found := original(x))
        return found

    original = loops.private
    with mock.patch.object(loops, "private", private):
        run(program, code, oracle, made=leaves)
    gc.collect()
    return bool(leaves)


def run(
    program: Program, code, transforms, perturb: float = 0, made: weakref.WeakSet | None = None
):
    """The outputs, and the gradients by the inputs."""
    scope = {"torch": torch, "F": F} | vars(transforms)  # the oracle has an F of its own
    exec(code, scope)
    inputs = [
        x.requires_grad_() if program.requires_grad and is_real(x) else x for x in scope["inputs"]()
    ]
    if perturb:
        inputs = [nudged(x, perturb) for x in inputs]
    if made is not None:
        made.update(inputs)
    outputs = scope["program"](*inputs)
    gradients = ()
    if program.requires_grad:
        total = [y.sum() for y in outputs if is_real(y) and y.requires_grad]
        leaves = [x for x in inputs if is_real(x)]
        if total:
            gradients = torch.autograd.grad(sum(total), leaves, materialize_grads=True)
    return [y.detach() for y in outputs], gradients


def is_real(x: torch.Tensor) -> bool:
    return x.is_floating_point()


def nudged(x: torch.Tensor, by: float) -> torch.Tensor:
    if not is_real(x) and not x.is_complex():
        return x
    requires_grad = x.requires_grad
    return (x.detach() * (1 + by * torch.randn(x.shape).sign())).requires_grad_(requires_grad)


def compare(program: Program, code, expected, actual) -> Verdict:
    wants, gots = pytree.tree_leaves(expected), pytree.tree_leaves(actual)
    if len(expected[1]) != len(actual[1]):  # one of them found nothing to differentiate
        some = expected[1] or actual[1]
        zeros = [torch.zeros_like(each) for each in some]
        wants = expected[0] + list(expected[1] or zeros)
        gots = actual[0] + list(actual[1] or zeros)
    for i, (want, got) in enumerate(zip(wants, gots, strict=True)):
        if want.dtype != got.dtype or want.shape != got.shape:
            return Verdict(WRONG, f"output {i}: {describe(got)} instead of {describe(want)}")
    if all(close(want, got) for want, got in zip(wants, gots)):
        return Verdict(RIGHT)
    try:
        others = moved(program, code)
    except Exception as error:
        return Verdict(UNJUDGED, str(error))
    # Does the oracle itself move that much?
    for i, (want, got) in enumerate(zip(wants, gots)):
        if not close(want, got) and bool(want.isfinite().all()):
            moves = [gap(want, other[i]) for other in others if i < len(other)]
            if not gap(want, got) <= 100 * max(moves, default=0):
                return Verdict(WRONG, f"output {i}: {got} instead of {want}")
    return Verdict(UNJUDGED, "ill-conditioned")


def moved(program: Program, code) -> list[list[torch.Tensor]]:
    """The oracle's answers when the inputs move a little, and when its numbers are rounded anew."""
    answers = [run(program, code, oracle, perturb=1e-11)]
    for seed in range(ROUNDINGS):
        with RandomRounding(seed):
            answers.append(run(program, code, oracle))
    return [pytree.tree_leaves(answer) for answer in answers]


def describe(x: torch.Tensor) -> str:
    return f"{tuple(x.shape)} of {x.dtype}"


def gap(one: torch.Tensor, other: torch.Tensor) -> float:
    difference = (one.to(torch.complex128) - other.to(torch.complex128)).abs()
    return difference.nan_to_num(nan=math.inf).max().item()


def close(want: torch.Tensor, got: torch.Tensor) -> bool:
    low = want.dtype in (torch.float32, torch.complex64)
    tolerance = LOW_PRECISION if low else TOLERANCE
    if want.dtype == torch.bool or not (want.is_floating_point() or want.is_complex()):
        return torch.equal(want, got)
    return torch.allclose(got, want, rtol=tolerance, atol=tolerance, equal_nan=True)
