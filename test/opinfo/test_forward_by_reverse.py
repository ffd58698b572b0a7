"""Forward mode of the operator database against reverse mode, or against differences.

The sweep beside this one takes PyTorch's forward mode for the truth. But where a formula is missing
in part, that is a silent zero; and where it is missing as a whole, there is none.
"""

import warnings

import pytest
import torch

from functorch_ext import jvp
from functorch_ext._releases import since
from test.device import device
from test.opinfo.modes import jvp_by_vjps
from test.opinfo.samples import OPERATORS, problems
from test.opinfo.sweep import seeded

FEW, MANY = 3, 40
STEP = 1e-6

# operator: why it raises
ERRORS = {
    "to_sparse": "its output is not strided",
    "as_strided.partial_views": "it reads memory beyond its argument",
    "normal": "its tangents have the shape of one argument",
}
# operator: how exact it is, where other than to 1e-7
TOLERANCE = {
    "cov": 3e-3,  # weights in single precision, and hardly a degree of freedom
    "linalg.lstsq": 1e-2,  # by differences, of singular values that lie close together
}


def differences(function, inputs, tangents):
    ahead = seeded(function, *(x + STEP * t for x, t in zip(inputs, tangents, strict=True)))
    behind = seeded(function, *(x - STEP * t for x, t in zip(inputs, tangents, strict=True)))
    return [(x - y) / (2 * STEP) for x, y in zip(ahead, behind, strict=True)]


def agree(actual, expected, tolerance):
    return all(
        torch.allclose(x, y.to(x.dtype), rtol=tolerance, atol=tolerance, equal_nan=True)
        for x, y in zip(actual, expected, strict=True)
    )


def is_right(p, tolerance):
    """Whether the tangents of a problem's outputs are right."""

    def function(*inputs):
        values = list(p.draws[0])
        for position, value in zip(p.differentiable, inputs, strict=True):
            values[position] = value
        return p.processed(*values)

    inputs = [p.draws[0][position].clone() for position in p.differentiable]
    tangents = [x.cos() for x in inputs]
    actual = seeded(lambda: jvp(function, tuple(inputs), tuple(tangents))[1])
    try:
        if agree(actual, seeded(jvp_by_vjps(function), *inputs), tolerance):
            return True
    except RuntimeError:  # it can't be differentiated twice
        pass
    expected = differences(function, inputs, tangents)
    # An output that reverse mode doesn't differentiate may have a tangent of zeros.
    outputs = seeded(function, *(x.clone().requires_grad_() for x in inputs))
    expected = [
        x if output.requires_grad or tangent.any() else tangent
        for x, output, tangent in zip(expected, outputs, actual, strict=True)
    ]
    return agree(actual, expected, max(tolerance, 1e-4))


def check(name, count):
    op = OPERATORS[name]
    if "grid_sample" in name and not since((2, 12)):
        pytest.skip("PyTorch differentiates it once")
    if not op.supports_autograd or torch.float64 not in op.supported_dtypes(device()):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, _ = problems(op, torch.float64, count)
        for p in found:
            if p.differentiable:
                assert is_right(p, TOLERANCE.get(name, 1e-7))


@pytest.mark.parametrize("name", sorted(OPERATORS.keys() - ERRORS.keys()))
def test_operator(name):
    check(name, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OPERATORS.keys() - ERRORS.keys()))
def test_more_samples(name):
    check(name, MANY)


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    with pytest.raises(RuntimeError):
        check(name, MANY)
