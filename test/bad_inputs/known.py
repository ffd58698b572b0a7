"""Verdicts that look like faults and aren't: what plain PyTorch itself gets wrong, with the reason."""

from test.bad_inputs.judge import CRASH

# By operator and outcome.
REASONS = {
    ("lu_unpack", CRASH): (
        "PyTorch's kernel writes beyond its memory where pivots don't fit: "
        "torch.lu_unpack(torch.randn(3, 3, 5), torch.ones(3, 3, 2, dtype=torch.int32))"
    ),
}


def reason(verdict):
    """Why this is no fault, or None."""
    name = verdict.case.rpartition("/")[0]
    return REASONS.get((name, verdict.outcome))
