"""The operators that ran, as a tree of calls: like calls from one place are counted together."""

import dataclasses
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy, set_code_exec_strategy

from functorch_ext import _C
from functorch_ext._inspect.advice import advice_on
from functorch_ext._inspect.places import Place, frames, is_users, place
from functorch_ext._inspect.stack import name_of_level, running_transforms
from functorch_ext.batching_rules import find_rule

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Where the program is: the innermost function of the user's, by its code, instruction and line, and
# the transforms that run.
_Where = tuple[tuple[types.CodeType, int, int | None] | None, tuple[str, ...]]

# What PyTorch's engine and its profiler report of themselves.
_ENGINE = "autograd::engine::"
_NOT_OF_PROGRAM = (_ENGINE, "profiler::")

WAYS = {
    "kernel": "PyTorch's kernel, on plain tensors",
    "torch.func": "a transform of torch.func's, around which ours run",
    "rule": "a batching rule, once for all samples",
    "python rule": "a batching rule of register_batching_rule or of torch.library",
    "decomposition": "operators of the same level, each in its own way",
    "once": "once, because no argument differs between samples",
    "value": "the operator itself, on the values that its tensors stand for",
    "functionalized": "an operator that writes to nothing",
    "loop": "one sample after another",
    "function": "a custom autograd.Function",
}


@dataclasses.dataclass
class Call:
    """Calls of one operator, from one place, that were computed in the same way.

    Attributes:
        operator: Its name, such as ``aten::mul.Tensor``; ``aten::`` is left out in print.
        plane: The plane that it was called on: 0 is plain tensors, 1 the outermost level.
        level: The transform whose tensors these are, ``vmap(level 1, 8 samples)`` or ``plain``.
        transforms: All transforms around the call, the outermost first.
        backward: Whether it is part of a backward pass; ``place`` is then where autograd recorded
            what it belongs to.
        way: What computed it, a key of ``WAYS``.
        family: Of a rule, the file in ``csrc/batching/`` that it stands in.
        place: The line of the user's code; ``None`` where no code of Python led to it.
        count: The number of calls.
        seconds: Time of all calls, with what they called.
        allocated: Bytes allocated meanwhile; ``None`` if a profiler ran.
        advice: What to do about a loop.
        calls: What it was computed by.
    """

    operator: str
    plane: int
    level: str
    transforms: tuple[str, ...]
    backward: bool
    way: str
    family: str | None
    place: Place | None
    count: int = 0
    seconds: float = 0.0
    allocated: int | None = None
    advice: str | None = None
    calls: list["Call"] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        """The operator's name as one would write it."""
        return self.operator.removeprefix("aten::")

    @property
    def by(self) -> str:
        """What computed it, with the family of a rule."""
        return self.way if self.family is None else f"{self.way} ({self.family})"

    def walk(self) -> Iterator["Call"]:
        """This one and all below."""
        yield self
        for call in self.calls:
            yield from call.walk()


def locate() -> _Where:
    """Where the program is right now; cheap, since each operator asks."""
    innermost = None
    top = sys._getframe(1)
    for frame in frames(top):
        if is_users(frame.f_code):
            innermost = (frame.f_code, frame.f_lasti, frame.f_lineno)
            break
    return innermost, running_transforms(top)


def tree_of(events: list[_C.Event]) -> list[Call]:
    """The calls that the program and backward passes made, with what computed them below."""
    return _Tree(events).roots


# Calls that have the same of these are counted together.
_ALIKE = ("operator", "place", "level", "way", "backward", "transforms")


class _Tree:
    def __init__(self, events: list[_C.Event]) -> None:
        self._events = events
        self._rules = {n: family for n, family, has_rule in _C.registered_operators() if has_rule}
        self._below: list[list[_C.Event]] = [[] for _ in events]
        for event in events:
            if event.is_operator and (above := self._operator_around(event.parent)) >= 0:
                self._below[above].append(event)
        # Calls on what are plain tensors to us that come to a level: torch.func's see to that.
        self._reach_deeper: set[int] = set()
        for index, event in reversed(list(enumerate(events))):
            if event.inherits and (event.plane[1] > 0 or index in self._reach_deeper):
                self._reach_deeper.add(self._operator_around(event.parent))
        self.roots: list[Call] = []
        self._known: dict[Any, Call] = {}
        self._kept: list[Call | None] = []
        for index, event in enumerate(events):
            self._kept.append(self._add(index, event))

    def _operator_around(self, index: int) -> int:
        while index >= 0 and not self._events[index].is_operator:
            index = self._events[index].parent
        return index

    def _add(self, index: int, event: _C.Event) -> Call | None:
        """Counts an event, and returns the call that it is now part of."""
        above = self._kept[event.parent] if event.parent >= 0 else None
        if event.is_node or event.name.startswith(_NOT_OF_PROGRAM):
            return above
        plane = event.plane[1]
        if plane == 0 and above is not None and above.way in ("kernel", "torch.func"):
            if event.inherits and not event.loop:
                return above  # how PyTorch's kernel does it
        call = self._call_of(index, event)
        key = (id(above), *(getattr(call, name) for name in _ALIKE))
        known = self._known.setdefault(key, call)
        if known is call:
            (self.roots if above is None else above.calls).append(call)
        call = known
        call.count += 1
        call.seconds += event.seconds
        if event.allocated >= 0:
            call.allocated = (call.allocated or 0) + event.allocated
        return call

    def _call_of(self, index: int, event: _C.Event) -> Call:
        way = self._way_of(index, event)
        found, transforms, backward = _where(self._events, index)
        name = event.name
        if event.loop and not event.is_operator:
            name = _subject_of(event.loop)
        call = Call(
            operator=name.removesuffix("."),
            plane=event.plane[1],
            level=_level_of(event.plane, transforms),
            transforms=transforms,
            backward=backward,
            way=way,
            family=self._rules.get(event.name) if way == "rule" else None,
            place=None if found is None else place(*found),
        )
        if event.loop:
            call.advice = advice_on(event.name, event.loop)
        return call

    def _way_of(self, index: int, event: _C.Event) -> str:
        if event.loop:
            return "loop"
        if not event.is_operator:
            return "function"
        kind, plane, _ = event.plane
        if plane == 0:
            return "torch.func" if index in self._reach_deeper else "kernel"
        if kind == "functional":
            return "functionalized"
        if any(e.level == event.level and not e.in_rule for e in self._below[index]):
            return "decomposition"
        if not event.batched:
            return "value" if kind == "values" else "once"
        if event.name in self._rules:
            return "rule"
        name, _, overload = event.name.partition(".")
        return "python rule" if find_rule(name, overload) is not None else "decomposition"


def where_of(events: list[_C.Event], index: int) -> tuple[Place | None, tuple[str, ...]]:
    """The user's line that an event belongs to, and the transforms around it."""
    found, transforms, _ = _where(events, index)
    return None if found is None else place(*found), transforms


def _where(events: list[_C.Event], index: int) -> tuple[Any, tuple[str, ...], bool]:
    """(code and instruction, transforms, whether a backward pass runs)."""
    found: Any = None
    transforms: tuple[str, ...] | None = None
    backward = False
    while index >= 0:
        event = events[index]
        if not backward and (node := _node_at(events, index)) is not None:
            backward = True
            if found is None and node.forward >= 0:
                found = _where(events, node.forward)[0]
        if event.where is not None:
            innermost, running = event.where
            found = innermost if found is None else found
            transforms = running if transforms is None else transforms
        index = event.parent
    return found, transforms or (), backward


def _node_at(events: list[_C.Event], index: int) -> _C.Event | None:
    """The node that an event is, or that the engine evaluates in it: it adds up gradients, too."""
    event = events[index]
    if event.is_node:
        return event
    if not event.name.startswith(_ENGINE):
        return None
    for each in itertools.islice(events, index + 1, None):
        if each.parent < index:
            break
        if each.is_node and each.parent == index:
            return each
    return None


def _level_of(plane: tuple[str, int, int], transforms: tuple[str, ...]) -> str:
    named = f"(level {plane[1]}"
    return next((t for t in transforms if named in t), None) or name_of_level(plane)


def _subject_of(message: str) -> str:
    """What a message on a loop is about, where no operator of PyTorch's is."""
    if message.startswith("torch.autograd.grad"):
        return "torch.autograd.grad"
    return message.partition(": the ")[2].partition(" reads")[0] or "loop"


def untraced(function: _Function) -> _Function:
    """Has Dynamo leave a function alone, and what that calls: its frames are looked at."""
    alone = _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP)
    marked: Any = function
    set_code_exec_strategy(marked.__code__, alone)
    marked._torchdynamo_disable = True
    return function


def observed(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> _C.Observation:
    """Runs ``func(*args, **kwargs)`` and returns what was seen of it, not what it returned."""
    observation = _C.Observation(locate, None)
    run_observed(observation, func, args, kwargs)
    return observation


def run_observed(
    observation: _C.Observation,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Runs ``func(*args, **kwargs)``, and raises what went wrong with observing it."""
    observation.run(lambda: func(*args, **kwargs))
    if observation.error:
        raise RuntimeError(f"functorch_ext: what observes operators failed: {observation.error}")
