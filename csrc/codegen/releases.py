"""Which releases of PyTorch have the operators that rules are for, where not all of them do.

The C++ sources register rules for these as for any other. In a release without one, a struct of its
name takes the place of PyTorch's, and its registration adds nothing (``engine/registration.h``). An
operator that isn't in this table has to be there, or the build stops at it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torchgen.model import NativeFunction

KNOWN = ("2.11", "2.12", "2.13", "2.14", "2.15")


class Span(NamedTuple):
    """The first release with an operator, and the first without it any more."""

    since: str | None = None
    until: str | None = None


# By the name of the struct in at::_ops.
OPERATORS = {
    "_philox_key_fold_in": Span(since="2.12"),
    "_philox_key_split": Span(since="2.12"),
    "_philox_normal": Span(since="2.12"),
    "_philox_normal_": Span(since="2.12"),
    "_philox_randint": Span(since="2.15"),
    "_philox_randint_": Span(since="2.15"),
    "_philox_uniform": Span(since="2.12"),
    "_philox_uniform_": Span(since="2.12"),
    "_scaled_addmm": Span(since="2.15"),
    "_scaled_addmm_": Span(since="2.15"),
    "_upsample_lanczos2d_aa": Span(since="2.12"),
    "_upsample_lanczos2d_aa_backward": Span(since="2.12"),
    "cholesky": Span(until="2.14"),
    "linalg_matrix_sqrth": Span(since="2.14"),
    "linalg_polar": Span(since="2.14"),
}


def release() -> str:
    """The release that is built against, such as ``"2.13"``."""
    return ".".join(torch.__version__.split(".")[:2])


def generate(functions: Sequence[NativeFunction]) -> dict[str, str]:
    """The structs of those that the release lacks.

    Raises:
        RuntimeError: The table is wrong about a known release.
    """
    present = {function.func.name.unambiguous_name() for function in functions}
    if release() in KNOWN:
        for name, span in OPERATORS.items():
            expected = _has(span, release())
            if (name in present) != expected:
                raise RuntimeError(
                    f"torch {torch.__version__} has {'no' if expected else 'an'} operator {name}: "
                    f"correct OPERATORS in {__file__}, which says {span}"
                )
    structs = "".join(
        f"struct {name} : functorch_ext::AbsentOperator {{}};\n"
        for name in sorted(OPERATORS.keys() - present)
    )
    text = (
        "#pragma once\n\n"
        "namespace functorch_ext {\nstruct AbsentOperator {};\n}  // namespace functorch_ext\n\n"
        f"namespace at::_ops {{\n{structs}}}  // namespace at::_ops\n"
    )
    return {"absent_operators.h": text}


def _has(span: Span, release: str) -> bool:
    number = _number(release)
    return (span.since is None or _number(span.since) <= number) and (
        span.until is None or number < _number(span.until)
    )


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))
