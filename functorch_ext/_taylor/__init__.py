"""Truncated Taylor series in the place of tensors, behind ``jet`` and ``laplacian``.

A function is called on tensors that hold the derivatives of a curve. Each operator computes those
of its result: by a rule (``rules``), or by nested forward mode of that one operator (``nested``).
"""


def install() -> None:
    """Fills the table of rules."""
    from functorch_ext._taylor import rules

    rules.install()
