"""What a workload is: one thing to compute, the ways to compute it, and what ours must reach."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import BY_HAND, OURS, TORCH_FUNC, Peers
from benchmarks.timing import Contenders, Timing


@dataclass(frozen=True)
class Verdict:
    """Whether one target is reached.

    Attributes:
        target: what must be reached, in words.
        measured: what was, as a number of the same unit.
        reached: whether that suffices.
    """

    target: str
    measured: float
    reached: bool


@dataclass(frozen=True)
class Target:
    """What functorch_ext must reach in a workload; what is None is not asked for.

    Attributes:
        faster_than_torch_func: torch.func's time is at least so many times ours.
        times_hand: our time is at most so many times that of the code written by hand.
        seconds: one call takes at most so long.

    Example::

        >>> timings = {"functorch_ext": Timing(1e-3, 1.0), "torch.func": Timing(3e-3, 3.0)}
        >>> Target(faster_than_torch_func=2.0).verdicts(timings)
        [Verdict(target='≥ 2× faster than torch.func', measured=3.0, reached=True)]
    """

    faster_than_torch_func: float | None = None
    times_hand: float | None = None
    seconds: float | None = None

    def verdicts(self, timings: dict[str, Timing]) -> list[Verdict]:
        """One for each target, from times that refer to functorch_ext's."""
        verdicts = []
        if (least := self.faster_than_torch_func) is not None:
            ratio = timings[TORCH_FUNC].ratio
            verdicts.append(Verdict(f"≥ {least:g}× faster than torch.func", ratio, ratio >= least))
        if (most := self.times_hand) is not None:
            ratio = 1 / timings[BY_HAND].ratio
            verdicts.append(Verdict(f"≤ {most:g}× by hand", ratio, ratio <= most))
        if (most := self.seconds) is not None:
            seconds = timings[OURS].seconds
            verdicts.append(Verdict(f"≤ {most * 1e6:g} µs", seconds * 1e6, seconds <= most))
        return verdicts


@dataclass(frozen=True)
class Workload:
    """One thing to compute.

    Attributes:
        name: what it is, with its sizes.
        target: what functorch_ext must reach.
        build: makes the data and the ways to compute from it, functions without arguments, by the
            names of :mod:`benchmarks.peers`.
    """

    name: str
    target: Target
    build: Callable[[Peers], Contenders]


def workload(name: str, **target: float) -> Callable[[Callable[..., Any]], Workload]:
    """Makes a workload of the function that builds it: a decorator.

    Args:
        name: what it is, with its sizes.
        target: the arguments of :class:`Target`.

    Example::

        @workload("vmap(sin), 4x8", times_hand=1.2)
        def sines(peers):
            x = torch.randn(4, 8)
            make = lambda library: partial(library.vmap(torch.sin), x)
            return {BY_HAND: x.sin, **peers.both(make)}
    """
    return lambda build: Workload(name, Target(**target), build)
