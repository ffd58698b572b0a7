"""Runs one entry of PyTorch's operator database under every mode and says what came of it.

The oracle is a Python loop over plain PyTorch.
"""

import collections
import unittest.mock
import warnings
from typing import NamedTuple

import torch

from functorch_ext import FallbackWarning, vmap
from test.opinfo import known
from test.opinfo.modes import DEEP_MODES, MODES
from test.opinfo.samples import OPERATORS, default_dtype, is_inexact, problems
from test.opinfo.variants import in_front, samples, stack, variants
from test.oracle import CONTIGUOUS, assert_close

SAMPLES, DEEP_SAMPLES = 16, 40
TOLERANCE = {
    torch.float16: 5e-3,
    torch.bfloat16: 4e-2,
    torch.float32: 1e-4,
    torch.complex64: 1e-4,
    torch.float8_e4m3fn: 0.2,
    torch.float8_e5m2: 0.2,
}
EXACT = 1e-9

PLAIN_RAISES = "plain PyTorch raises"
SHAPES_DIFFER = "the shapes of its outputs differ between the samples"
DRAWS_BY_VALUE = "how often it draws depends on the values: no loop draws the same"
NOT_A_NUMBER = "PyTorch's second derivative is not a number"
NO_TENSOR = "its output has no tensor"


class Outcome(NamedTuple):
    """`status` is rule, loop, error, WRONG, or n/a where plain PyTorch has nothing to compare."""

    status: str
    detail: str = ""


SEVERITY = ("n/a", "rule", "loop", "error", "WRONG")


class NotApplicable(Exception):
    """There is nothing to compare with."""


def randomness(name, p):
    """What to ask of vmap: where nothing is drawn, as by dropout in evaluation, it needs nothing."""
    draws_nothing = name in known.SOMETIMES_RANDOM and not is_random(p)
    return "same" if name in known.RANDOM and not draws_nothing else "error"


def seeded(function, *args, seed=7):
    """What a random operator draws under randomness="same" is what it draws after the same seed."""
    torch.default_generator.manual_seed(seed)
    return function(*args)


def is_random(p):
    found = []
    for seed in (7, 8):
        torch.default_generator.manual_seed(seed)
        with unittest.mock.patch("torch.manual_seed"):  # the database seeds random operators itself
            found.append(p.function(*[x.clone() for x in p.draws[0]]))
    return not all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def oracle(name, p, mode, variant):
    """A list of outputs, each as a list of the samples' values."""
    plain = mode.plain(p, name in known.BY_VJPS, name in known.BY_DIFFERENCES)
    arguments = samples(p.draws, variant) if mode.levels else [p.draws[0]]
    if name in known.DRAWS_BY_VALUE and is_random(p):
        raise NotApplicable(DRAWS_BY_VALUE)
    if mode.transforms and name in known.WRONG_GRADIENT:
        raise NotApplicable(known.WRONG_GRADIENT[name])
    if mode.twice and name in known.NOT_TWICE:
        raise NotApplicable(known.NOT_TWICE[name])
    try:
        # A sample has memory of its own: some kernels are wrong for strided samples.
        found = [
            seeded(plain, *[x.clone(memory_format=CONTIGUOUS) for x in args]) for args in arguments
        ]
    except Exception as error:
        raise NotApplicable(PLAIN_RAISES) from error
    columns = list(zip(*found, strict=True))
    if not columns:
        raise NotApplicable(NO_TENSOR)
    if any(x.shape != column[0].shape for column in columns for x in column):
        raise NotApplicable(SHAPES_DIFFER)
    if mode.twice and any(x.isnan().any() for column in columns for x in column):
        raise NotApplicable(NOT_A_NUMBER)
    return columns


def mapped(p, mode, variant, view, randomness):
    """What we make of it: the same list of lists."""
    function = mode.ours(p)
    if not mode.levels:
        return [[x] for x in seeded(function, *[x.clone() for x in p.draws[0]])]
    for dims in reversed(variant):
        function = vmap(function, dims, randomness=randomness)
    args = [view(x) for x in stack(p.draws, variant)]
    columns = [x.unbind() for x in seeded(function, *args)]
    for _ in range(mode.levels - 1):
        columns = [[x for part in column for x in part.unbind()] for column in columns]
    return columns


def compare(actual, expected, name, dtypes, exact):
    """Raises an AssertionError if they differ."""
    assert len(actual) == len(expected), f"{len(actual)} outputs instead of {len(expected)}"
    for got, want in zip(actual, expected, strict=True):
        if name in known.UNINITIALISED:
            described = [(x.shape, x.dtype, x.stride()) for x in got]
            assert described == [(x.shape, x.dtype, x.stride()) for x in want]
            continue
        got, want = torch.stack(list(got)), torch.stack(list(want))
        tolerance = max(TOLERANCE.get(dtype, EXACT) for dtype in {*dtypes, want.dtype})
        assert_close(comparable(got), comparable(want), max(tolerance, exact))


def comparable(x):
    """Numbers of 4 and 8 bits as float32, which compares them without knowing their format."""
    return x.float() if is_inexact(x) and x.element_size() == 1 else x


def run(name, p, mode, variant, expected, view=torch.clone, tolerance=None):
    """The Outcome of one problem, stacked one way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            actual = mapped(p, mode, variant, view, randomness(name, p))
        except Exception as error:
            return Outcome("error", f"{type(error).__name__}: {error}".partition("\n")[0])
    dtypes = {x.dtype for x in p.draws[0] if is_inexact(x)}
    tolerance = tolerance or (known.TOLERANCE_TWICE.get(name, 0) if mode.twice else 0)
    try:
        compare(actual, expected, name, dtypes, tolerance)
    except AssertionError as error:
        return Outcome("WRONG", f"in_dims={variant}: {error}")
    looped = [str(w.message) for w in caught if issubclass(w.category, FallbackWarning)]
    return Outcome("loop", looped[0].partition("\n")[0]) if looped else Outcome("rule")


def stacked_ways(name, p, mode, deep):
    """The variants to run, each with what the oracle says of it."""
    if not mode.levels:
        return [((), oracle(name, p, mode, ()))]
    found, answers = [], {}
    for variant in variants(len(p.draws[0]), mode.levels, deep):
        key = in_front(variant)
        if key not in answers:
            answers[key] = oracle(name, p, mode, key)
        found.append((key if name in known.READS_STRIDES else variant, answers[key]))
    return found


def outcomes(name, op, found, mode, deep=False, view=torch.clone, tolerance=None):
    """All Outcomes of an operator's problems under one mode, equal ones only once."""
    several = collections.Counter()
    for p in found:
        reason = mode.missing(op, p)
        if reason:
            several[Outcome("n/a", reason)] += 1
            continue
        try:
            ways = stacked_ways(name, p, mode, deep)
        except NotApplicable as reason:
            several[Outcome("n/a", str(reason))] += 1
            continue
        for variant, expected in ways:
            several[run(name, p, mode, variant, expected, view, tolerance)] += 1
    return several


def sweep(name, deep=False):
    """For every mode, the Outcomes of an operator and how often each was met."""
    modes = DEEP_MODES if deep else MODES
    if name in known.SKIPPED:
        return {mode: collections.Counter([Outcome("n/a", known.SKIPPED[name])]) for mode in modes}
    op = OPERATORS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, reasons = problems(op, default_dtype(op), DEEP_SAMPLES if deep else SAMPLES)
        missing = collections.Counter({Outcome("n/a", reason): n for reason, n in reasons.items()})
        return {
            label: outcomes(name, op, found, mode, deep) + missing for label, mode in modes.items()
        }


def worst(several):
    """The one Outcome to report of several."""
    return max(several, key=lambda outcome: SEVERITY.index(outcome.status))
