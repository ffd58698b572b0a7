"""Verdicts that look like faults and aren't, each with the reason."""

from test.bad_inputs.judge import ACCEPTED, MESSAGE

PLAIN_ASSERTION = "plain PyTorch fails with the same assertion in its backward pass"

REASONS = {
    ("nn.functional.fractional_max_pool2d", MESSAGE): PLAIN_ASSERTION,
    ("nn.functional.fractional_max_pool3d", MESSAGE): PLAIN_ASSERTION,
    ("_softmax_backward_data", ACCEPTED): "its derivative broadcasts a gradient of another size",
}


def reason(verdict):
    """Why this is no fault, or None."""
    name = verdict.case.rpartition("/")[0]
    return REASONS.get((name, verdict.outcome))
