"""``explain``: what each operator of a function is computed by, and what it costs."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from functorch_ext._inspect import tables
from functorch_ext._inspect.calls import Call, observed, tree_of, untraced


def explain(func: Callable[..., Any]) -> Callable[..., "Explanation"]:
    """Says what each operator of a function is computed by, and what to do about loops.

    The function runs once, with all its transforms, as it would without; its result is dropped. It
    may be any function: ``vmap(grad(loss))``, or one that calls transforms. A loop over samples is
    part of the report, and gives no ``FallbackWarning``. Functions that :func:`jit` or
    ``torch.compile`` have compiled show what their kernels leave over.

    Args:
        func: The function to look into.

    Returns:
        A function of the arguments of ``func`` that returns an :class:`Explanation`. It prints as a
        table, is an HTML table in a notebook, and has ``calls``, ``loops``, ``seconds``, ``peak``
        and ``to_dict()``. Each operator that the program called has its line, the transforms
        around it, what it was computed by, how often, how long (on a GPU until its kernels were
        done) and with how much memory, and below it the operators of lower levels that computed
        it. In a backward pass the line is that of the operator that is differentiated.

    Raises:
        Exception: what ``func`` raises.

    Example::

        >>> def loss(x, w):
        ...     return torch.tanh(x @ w).sum()
        >>> report = explain(vmap(loss, in_dims=(0, None)))(torch.ones(8, 3), torch.ones(3, 2))
        >>> for call in report.calls:
        ...     print(call.name, "by", call.by, "for", call.level)
        matmul by rule (matmul) for vmap(level 1, 8 samples)
        tanh by rule (pointwise) for vmap(level 1, 8 samples)
        sum by rule (reductions) for vmap(level 1, 8 samples)
        >>> report.loops
        []
    """

    @functools.wraps(func)
    def explained(*args: Any, **kwargs: Any) -> Explanation:
        return _explanation(func, args, kwargs)

    return explained


@untraced
def _explanation(func: Callable[..., Any], args: Any, kwargs: Any) -> "Explanation":
    observation = observed(func, args, kwargs)
    calls = tree_of(observation.events())
    return Explanation(_name_of(func), calls, observation.seconds, observation.peak)


def _name_of(func: Callable[..., Any]) -> str:
    name = getattr(func, "__qualname__", type(func).__name__).rpartition("<locals>.")[2]
    # Of PyTorch's classes that stand for modules, such as _VariableFunctionsClass.
    return name.rpartition(".")[2] if name.startswith("_") else name


@dataclasses.dataclass(repr=False)
class Explanation:
    """What :func:`explain` found. It holds no tensor.

    Attributes:
        name: Of the function.
        calls: What the program and backward passes called, in order; each call has below it what
            it was computed by.
        seconds: How long the function ran, less the time that it took to look.
        peak: How many bytes more were allocated at a time than before the call; ``None`` if a
            profiler ran.
    """

    name: str
    calls: list[Call]
    seconds: float
    peak: int | None

    def walk(self) -> Iterator[Call]:
        """All calls, each ahead of what it was computed by."""
        for call in self.calls:
            yield from call.walk()

    @property
    def loops(self) -> list[Call]:
        """The calls that ran sample by sample, the slowest first."""
        found = [call for call in self.walk() if call.way == "loop"]
        return sorted(found, key=lambda call: -call.seconds)

    def to_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, strings and numbers, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return tables.as_text(self.name, self.calls, self.loops, self.seconds, self.peak)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return tables.as_html(self.name, self.calls, self.loops, self.seconds, self.peak)
