"""Every family of batching rules against the loop, for every choice of batched arguments.

Plain vmap, vmap of grad (with a cotangent that differs from sample to sample) and vmap of jvp, with
the batch dimension first, last and mixed. None of these may fall back to the per-sample loop.
"""

import itertools
import warnings

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch.utils import _pytree as pytree

import test.rules.batching_cases_linear
import test.rules.batching_cases_nn
import test.rules.batching_cases_selecting
import test.rules.batching_cases_sequences  # noqa: F401
from functorch_ext import FallbackWarning, grad, jvp, vmap
from test.oracle import assert_close, loop
from test.rules.batching_cases import FAMILIES

BATCH = 3


def batched_choices(case):
    """Which arguments are batched: every choice, or a few where there are more than three."""
    everything = range(len(case.arguments))
    needed = {i for i, argument in enumerate(case.arguments) if argument.written}
    sizes = everything if len(everything) <= 3 else (0, len(everything) - 2, len(everything) - 1)
    for size in sizes:
        for chosen in itertools.combinations(everything, size + 1):
            if needed <= set(chosen):
                yield chosen


def draw(case, chosen, dims):
    """Arguments, and the in_dims that go with them: `dims` in turn for the chosen ones."""
    args, in_dims, turns = [], [], itertools.cycle(dims)
    for position, argument in enumerate(case.arguments):
        in_dims.append(next(turns) if position in chosen else None)
        if in_dims[-1] is None:
            args.append(argument.make())
        else:
            args.append(torch.stack([argument.make() for _ in range(BATCH)], in_dims[-1]))
    return args, tuple(in_dims)


def is_inexact(x):
    return x.is_floating_point() or x.is_complex()


def squash(outputs):
    """A scalar whose cotangents for `outputs` differ from sample to sample."""
    outputs = [torch.view_as_real(out) if out.is_complex() else out for out in outputs]
    return sum(output.sin().sum() for output in outputs)


def split(case, args):
    """The case as a function of what it can be differentiated by alone, and these arguments."""
    pairs = list(zip(args, case.arguments, strict=True))
    positions = [
        i for i, (x, argument) in enumerate(pairs) if is_inexact(x) and not argument.constant
    ]

    def function(*values):
        full = list(args)
        for position, value in zip(positions, values, strict=True):
            full[position] = value
        return [leaf for leaf in pytree.tree_leaves(case.function(*full)) if is_inexact(leaf)]

    return function, tuple(args[i] for i in positions)


def plain_gradients(case):
    def gradients(*args):
        function, inputs = split(case, args)
        inputs = [x.detach().clone().requires_grad_() for x in inputs]
        found = torch.autograd.grad(squash(function(*inputs)), inputs, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]

    return gradients


def gradients(case):
    def gradients(*args):
        function, inputs = split(case, args)
        positions = tuple(range(len(inputs)))
        return list(grad(lambda *inputs: squash(function(*inputs)), positions)(*inputs))

    return gradients


def plain_tangents(case):
    def tangents(*args):
        function, inputs = split(case, args)
        with forward_ad.dual_level():
            outputs = function(*(forward_ad.make_dual(x, x.cos()) for x in inputs))
            pairs = [forward_ad.unpack_dual(output) for output in outputs]
            return [torch.zeros_like(p.primal) if p.tangent is None else p.tangent for p in pairs]

    return tangents


def tangents(case):
    def tangents(*args):
        function, inputs = split(case, args)
        return jvp(function, inputs, tuple(x.cos() for x in inputs))[1]

    return tangents


def same(case):
    return case.function


NAN_ON_SOME_PROCESSORS = {"scaled_mm"}
MODES = {
    "vmap": (same, same),
    "vmap(grad)": (gradients, plain_gradients),
    "vmap(jvp)": (tangents, plain_tangents),
}


def applies(case, mode):
    """Whether plain PyTorch can differentiate the case in this way."""
    if mode == "vmap":
        return True
    args = [argument.make() for argument in case.arguments]
    function, inputs = split(case, args)
    if not inputs:
        return False
    try:
        outputs = function(*(x.requires_grad_() for x in inputs))
        if not any(output.requires_grad for output in outputs):
            return False
        MODES[mode][1](case)(*args)
    except RuntimeError as error:
        assert "not implemented" in str(error) or "does not support it" in str(error), error
        return False
    return True


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, mode) for name, case in FAMILIES.items() for mode in MODES if applies(case, mode)],
)
def test_rule(name, mode):
    case = FAMILIES[name]
    transformed, plain = (wrap(case) for wrap in MODES[mode])
    for dims in ((0,), (-1,), (-1, 0)):
        for chosen in batched_choices(case):
            if len(dims) > 1 and len(chosen) < 2:
                continue
            args, in_dims = draw(case, chosen, dims)
            expected = loop(plain, in_dims)(*args)
            if name in NAN_ON_SOME_PROCESSORS and expected.isnan().any():
                pytest.skip("plain PyTorch's kernel for this processor gives NaN")
            with warnings.catch_warnings():
                warnings.simplefilter("error", FallbackWarning)
                actual = vmap(transformed, in_dims)(*args)
            exact = all(
                arg.dtype != torch.float32 for arg in [*args, *pytree.tree_leaves(expected)]
            )
            tolerance = 1e-9 if exact else 1e-5
            assert_close(actual, expected, tolerance, message=f"in_dims={in_dims}")


def test_samples_differ():
    """Were all samples the same, mixing them up would go unseen."""
    for name, case in FAMILIES.items():
        for make, *_ in case.arguments:
            first, *others = (make() for _ in range(6))
            assert first.numel() == 1 or not all(torch.equal(first, x) for x in others), name
