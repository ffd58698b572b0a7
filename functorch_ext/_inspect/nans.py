"""``nans``: the operator in which NaN or infinity appears first."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._inspect.calls import observed, where_of
from functorch_ext._inspect.places import Place
from functorch_ext._inspect.quantities import several
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
    samples: tuple[tuple[int, ...], ...]
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
    """What :func:`nans` found. It holds no tensor, and is false if all numbers were finite.

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
        return "\n".join(lines) or "all numbers are finite"

    __repr__ = __str__


def nans(func: Callable[..., Any]) -> Callable[..., Findings]:
    """Finds where NaN or infinity appears first: the operator, the samples, the line.

    The function runs once, with all its transforms, and its result is dropped. The results of the
    operators that the program calls, and of those in backward passes, are looked at one after
    another. What PyTorch's own code computes in between, and compiled functions, are not.

    Args:
        func: The function to look into, as for :func:`functorch_ext.explain`.

    Returns:
        A function of the arguments of ``func`` that returns :class:`Findings`. They are false if
        all numbers were finite, print as text, and have the ``first`` of each kind (an infinity
        may be meant, as in a mask, and a NaN not) and the ``arguments`` that weren't finite.

    Raises:
        Exception: what ``func`` raises, with a note on what was found before.

    Example::

        >>> def loss(x):
        ...     return torch.log(x).sum()
        >>> found = functorch_ext.debug.nans(vmap(loss))(torch.tensor([[1.0], [-1.0], [2.0]]))
        >>> found.first[0].operator, found.first[0].samples
        ('aten::log', ((1,),))
    """

    @functools.wraps(func)
    def looked_at(*args: Any, **kwargs: Any) -> Findings:
        watch = _Watch()
        arguments = _arguments(watch, args, kwargs)
        try:
            observation = observed(func, args, kwargs, watch.check)
        except Exception as error:
            for kind, phase in watch.found:
                error.add_note(f"functorch_ext.debug.nans: {kind} had appeared before ({phase})")
            raise
        events = observation.events()
        return Findings(tuple(watch.findings(events)), arguments)

    return looked_at


class _Watch:
    """Looks at results while they come."""

    def __init__(self) -> None:
        # The event, the samples, and whether an argument was the same.
        self.found: dict[_Kind, tuple[int, tuple[tuple[int, ...], ...], bool]] = {}

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
            for kind, samples in _not_finite(result).items():
                if (kind, phase) not in self.found:
                    before = any(kind in _not_finite(each) for each in inputs)
                    self.found[kind, phase] = (event, samples, before)

    def findings(self, events: list[_C.Event]) -> list[Finding]:
        findings = []
        for (kind, phase), (index, samples, before) in self.found.items():
            place, transforms = where_of(events, index)
            name = events[index].name
            findings.append(Finding(kind, phase, name, place, transforms, samples, before))
        return findings


def _not_finite(tensor: Tensor) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The kinds of numbers that aren't finite, with the samples that hold them."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return {}
    try:
        return _C.run_outside_transforms(_samples_of, tensor)
    except RuntimeError:
        return {}  # a tensor of torch.func's, which only its transforms understand


def _samples_of(tensor: Tensor) -> dict[str, tuple[tuple[int, ...], ...]]:
    bdims = []
    while (found := _C.look_at(tensor)) is not None:
        tensor, _, _, bdim, _, _ = found
        bdims.append(bdim)
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided:
        return {}
    value = tensor.detach()
    front = 0
    for bdim in reversed(bdims):
        if bdim is not None:
            value = value.movedim(front + bdim, front)
            front += 1
    kinds = {}
    for kind, test in (("NaN", torch.isnan), ("infinity", torch.isinf)):
        bad = test(value)
        if bad.any().item():
            bad = bad.reshape(*bad.shape[:front], -1).any(-1)
            kinds[kind] = tuple(map(tuple, bad.nonzero().tolist())) if front else ()
    return kinds


def _arguments(watch: _Watch, args: Any, kwargs: Any) -> tuple[str, ...]:
    names = []
    for what, tree in (("args", args), ("kwargs", kwargs)):
        for index, leaf in enumerate(flatten(tree)[0]):
            if isinstance(leaf, Tensor) and _not_finite(leaf):
                names.append(name_of_leaf(what, tree, index))
    return tuple(names)


def _listed(samples: tuple[tuple[int, ...], ...]) -> str:
    shown = [str(each[0] if len(each) == 1 else each) for each in samples[:_MOST_SAMPLES]]
    more = "" if len(samples) <= _MOST_SAMPLES else f" and {len(samples) - _MOST_SAMPLES} more"
    return f"{several(len(samples), 'sample').partition(' ')[2]} {', '.join(shown)}{more}"
