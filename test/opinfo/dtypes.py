"""The operator database in every dtype, and with arguments that are conjugated or negated views.

The oracle is the loop over plain PyTorch in the same dtype, so that only what vmap adds differs.
"""

import collections
import warnings

import torch

from test.opinfo import known, known_dtypes
from test.opinfo.modes import MODES
from test.opinfo.samples import OPERATORS, is_inexact, problems
from test.opinfo.sweep import Outcome, outcomes

SAMPLES = 3


def conjugated(x):
    """The same numbers, as a view whose memory holds their conjugates."""
    return x.conj_physical().conj() if x.is_complex() else x.clone()


def negated(x):
    """The same numbers, as a view whose memory holds their negatives."""
    return torch._neg_view(-x) if is_inexact(x) else x.clone()


# label: (dtype, modes, what is done to the stacked arguments)
KINDS = {
    "bool": (torch.bool, ("vmap",), torch.clone),
    "uint8": (torch.uint8, ("vmap",), torch.clone),
    "int32": (torch.int32, ("vmap",), torch.clone),
    "int64": (torch.int64, ("vmap",), torch.clone),
    "float16": (torch.float16, ("vmap", "vmap(vjp)"), torch.clone),
    "bfloat16": (torch.bfloat16, ("vmap", "vmap(vjp)"), torch.clone),
    "float32": (torch.float32, ("vmap",), torch.clone),
    "complex64": (torch.complex64, ("vmap", "vmap(vjp)"), torch.clone),
    "conjugated": (torch.complex128, ("vmap", "vmap(vjp)"), conjugated),
    "negated": (torch.float64, ("vmap", "vmap(vjp)"), negated),
}


def sweep_dtypes(name):
    """For every kind and mode, the Outcomes of an operator and how often each was met."""
    if name in known.SKIPPED:
        return {}
    op = OPERATORS[name]
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, (dtype, modes, view) in KINDS.items():
            stacks, reasons = problems(op, dtype, SAMPLES)
            missing = {Outcome("n/a", reason): count for reason, count in reasons.items()}
            for mode in modes:
                tolerance = known_dtypes.TOLERANCE.get((name, kind))
                several = outcomes(name, op, stacks, MODES[mode], view=view, tolerance=tolerance)
                found[f"{kind} {mode}"] = several + collections.Counter(missing)
    return found
