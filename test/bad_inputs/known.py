"""Verdicts that look like faults and aren't: what plain PyTorch itself gets wrong, with the reason."""

REASONS = {}


def reason(verdict):
    """Why this is no fault, or None."""
    name = verdict.case.rpartition("/")[0]
    return REASONS.get((name, verdict.outcome))
