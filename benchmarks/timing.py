"""Fair comparison of functions that compute the same, on a machine that others use too.

A busy machine changes its speed from second to second, so absolute times of two runs can't be
compared. Here all contenders run in turn within every round (A B C, A B C, ...), and what counts is
the ratio of their times within a round: the median of it over the rounds.

On one thread the clock is that of the process, which stands still while the machine runs others.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

# Functions without arguments, by name (or by another key).
Contenders = Mapping[Any, Callable[[], Any]]

FEWEST_ROUNDS = 7


@dataclass(frozen=True)
class Timing:
    """What was measured of one contender.

    Attributes:
        seconds: the median time of one call.
        ratio: how many times as long as the reference it took: the median of the rounds' ratios.
    """

    seconds: float
    ratio: float


def assert_equal_results(
    contenders: Contenders,
    reference: str,
    convert: Callable[[Any], Any] = lambda result: result,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """Raises an AssertionError unless all contenders return what the reference returns.

    The tolerance is that of float32 sums taken in another order.

    Args:
        contenders: functions without arguments, by name.
        reference: the name of the one whose result is right.
        convert: makes tensors of a result, where they aren't.
        rtol: how far they may be apart, relative to the reference's numbers.
        atol: the same in the numbers' own unit.
    """
    expected = convert(contenders[reference]())
    for name, run in contenders.items():
        torch.testing.assert_close(
            convert(run()),
            expected,
            rtol=rtol,
            atol=atol,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def measure(
    contenders: Contenders,
    reference: Any,
    rounds: int,
    *,
    seconds_per_turn: float = 0.01,
    seconds_in_all: float = float("inf"),
    device: str = "cpu",
) -> dict[Any, Timing]:
    """Times the contenders in interleaved rounds.

    Args:
        contenders: functions without arguments, by name.
        reference: the one that the others' ratios refer to.
        rounds: how often each gets its turn.
        seconds_per_turn: how long a turn lasts, about; a short function is called repeatedly.
        seconds_in_all: fewer rounds, but not under ``FEWEST_ROUNDS``, if they would last longer.
        device: where they compute. A turn on "cuda" ends when the device has computed.

    Returns:
        A Timing for each contender.

    Example::

        >>> measure({"sin": x.sin, "cos": x.cos}, "sin", rounds=10)["cos"].ratio
        1.02
    """
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    one_thread = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if one_thread else time.perf_counter

    def take_turn(run: Callable[[], Any], calls: int) -> float:
        """The seconds that one of so many calls takes."""
        wait()
        start = clock()
        for _ in range(calls):
            run()
        wait()
        return (clock() - start) / calls

    def calls_per_turn(run: Callable[[], Any]) -> int:
        take_turn(run, 3)  # Warms up: allocators, caches, lazy initialization.
        return max(1, round(seconds_per_turn / min(take_turn(run, 1) for _ in range(3))))

    calls = {name: calls_per_turn(run) for name, run in contenders.items()}
    turns: dict[Any, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.disable()  # A collection would fall on whoever happens to run.
    start = time.perf_counter()
    try:
        for done in range(rounds):
            if done >= FEWEST_ROUNDS and time.perf_counter() - start > seconds_in_all:
                break
            for name, run in contenders.items():
                run()  # Uncounted: it meets caches and heap as another contender left them.
                turns[name].append(take_turn(run, calls[name]))
    finally:
        gc.enable()
    return {
        name: Timing(
            statistics.median(times),
            statistics.median(a / b for a, b in zip(times, turns[reference])),
        )
        for name, times in turns.items()
    }


def _nothing() -> None:
    """The CPU has computed when a call returns."""
