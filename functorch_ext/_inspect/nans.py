"""``nans``: the operator in which NaN or infinity appears first."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from functorch_ext import _C
from functorch_ext._inspect.calls import locate, run_observed, untraced, where_of
from functorch_ext._inspect.places import Place
from functorch_ext._inspect.quantities import several
from functorch_ext._inspect.samples import Sample, not_finite
from functorch_ext._pytree import flatten, name_of_leaf

_MOST_SAMPLES = 8

# (NaN or infinity, which values of the result)
_Kind = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Finding:
    """Where NaN, or infinity, appeared first.

    Attributes:
        kind: ``"NaN"`` or ``"infinity"``.
        phase: ``"forward"``, ``"tangent"`` (of forward mode), or ``"backward"``.
        operator: The operator whose result it is in, such as ``aten::log``.
        place: The line of the user's code; in a backward pass, where the operator was called whose
            derivative this is.
        transforms: The transforms around, the outermost first.
        samples: In which samples: an index for each vmap, the outermost first. Empty outside of
            vmap.
        from_arguments: Whether an argument of the operator held the same: it came from outside, or
            from where nothing can be observed.
    """

    kind: str
    phase: str
    operator: str
    place: Place | None
    transforms: tuple[str, ...]
    samples: tuple[Sample, ...]
    from_arguments: bool

    def __str__(self) -> str:
        what = "arrives at" if self.from_arguments else "appears in"
        parts = [f"{self.kind} {what} {self.operator.removeprefix('aten::')} ({self.phase})"]
        if self.samples:
            parts.append(f", {_listed(self.samples)}")
        parts.append(f", inside {' > '.join(self.transforms)}" if self.transforms else "")
        return "".join(parts) + (f"\n  at {self.place}" if self.place else "")


@dataclasses.dataclass(frozen=True, repr=False)
class Findings:
    """What :func:`nans` found. It holds no tensor, and is false if all numbers were finite that the
    thread computed.

    Attributes:
        first: For NaN and infinity, forward, in tangents and backward: where each appeared first,
            in the order in which they did.
        arguments: Which arguments held NaN or infinity already.
    """

    first: tuple[Finding, ...]
    arguments: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.first or self.arguments)

    def __str__(self) -> str:
        lines = [f"{each} is not finite as it comes in" for each in self.arguments]
        lines += map(str, self.first)
        return "\n".join(lines) or "all numbers that this thread computed are finite"

    __repr__ = __str__


def nans(func: Callable[..., Any]) -> Callable[..., Findings]:
    """Finds where NaN or infinity appears first: the operator, the samples, the line.

    The function runs once, with all its transforms, and its result is dropped. The results of the
    operators that the program calls, and of those in backward passes, are looked at one after
    another. What PyTorch's own code computes in between is not, nor are compiled functions, nor
    other threads that the program starts.

    Args:
        func: The function to look into, as for :func:`functorch_ext.explain`.

    Returns:
        A function of the arguments of ``func`` that returns :class:`Findings`. They are false if
        all numbers were finite, print as text, and have the ``first`` of each kind (an infinity
        may be meant, as in a mask, and a NaN not) and the ``arguments`` that weren't finite.

    Raises:
        Exception: what ``func`` raises, with a note on each of what was found before.

    Example::

        >>> def loss(x):
        ...     return torch.log(x).sum()
        >>> found = functorch_ext.debug.nans(vmap(loss))(torch.tensor([[1.0], [-1.0], [2.0]]))
        >>> found.first[0].operator, found.first[0].samples
        ('aten::log', ((1,),))
    """

    @functools.wraps(func)
    def looked_at(*args: Any, **kwargs: Any) -> Findings:
        return _findings(func, args, kwargs)

    return looked_at


@untraced
def _findings(func: Callable[..., Any], args: Any, kwargs: Any) -> Findings:
    watch = _Watch()
    arguments = _arguments(args, kwargs)
    observation = _C.Observation(locate, watch.check)
    try:
        run_observed(observation, func, args, kwargs)
    except Exception as error:
        for finding in watch.findings(observation.events()):
            BaseException.add_note(error, f"functorch_ext.debug.nans: before, {finding}")
        raise
    return Findings(tuple(watch.findings(observation.events())), arguments)


class _Watch:
    """Looks at results while they come."""

    def __init__(self) -> None:
        # The event, the samples, and whether an argument was the same.
        self.found: dict[_Kind, tuple[int, tuple[Sample, ...], bool]] = {}

    def check(
        self, event: int, backward: bool, inputs: list[Tensor], outputs: list[Tensor]
    ) -> None:
        for output in outputs:
            phase = "backward" if backward else "forward"
            self._look(event, phase, output, [x for x in inputs if x is not output])
            if not backward and (tangent := _C.tangent_of(output)) is not None:
                tangents = [t for x in inputs if (t := _C.tangent_of(x)) is not None]
                self._look(event, "tangent", tangent, tangents)

    def _look(self, event: int, phase: str, result: Tensor, inputs: list[Tensor]) -> None:
        if not all((kind, phase) in self.found for kind in ("NaN", "infinity")):
            for kind, samples in not_finite(result).items():
                if (kind, phase) not in self.found:
                    before = any(kind in not_finite(each) for each in inputs)
                    self.found[kind, phase] = (event, samples, before)

    def findings(self, events: list[_C.Event]) -> list[Finding]:
        findings = []
        for (kind, phase), (index, samples, before) in self.found.items():
            place, transforms = where_of(events, index)
            name = events[index].name
            findings.append(Finding(kind, phase, name, place, transforms, samples, before))
        return findings


def _arguments(args: Any, kwargs: Any) -> tuple[str, ...]:
    names = []
    for what, tree in (("args", args), ("kwargs", kwargs)):
        for index, leaf in enumerate(flatten(tree)[0]):
            if isinstance(leaf, Tensor) and not_finite(leaf):
                names.append(name_of_leaf(what, tree, index))
    return tuple(names)


def _listed(samples: tuple[Sample, ...]) -> str:
    shown = [str(each[0] if len(each) == 1 else each) for each in samples[:_MOST_SAMPLES]]
    more = "" if len(samples) <= _MOST_SAMPLES else f" and {len(samples) - _MOST_SAMPLES} more"
    return f"{several(len(samples), 'sample').partition(' ')[2]} {', '.join(shown)}{more}"
