"""``leaks``: tensors that outlived their transform, and who holds them."""

import dataclasses
import gc
import sys
import types
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from functorch_ext import _C
from functorch_ext._inspect.places import is_ours
from functorch_ext._inspect.stack import name_of_level

_MOST_HOLDERS = 8
_MOST_NODES = 10_000
_DEEPEST = 3  # containers in containers


@dataclasses.dataclass(frozen=True)
class Leak:
    """A tensor whose transform has returned.

    Attributes:
        level: The transform, such as ``vmap(level 1, 8 samples)``.
        shape: The tensor's shape.
        dtype: Its dtype, as text.
        holders: Who holds it, by name.
    """

    level: str
    shape: tuple[int, ...]
    dtype: str
    holders: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"a tensor of {self.level}, shape {self.shape}, {self.dtype}, held by"]
        return "\n  ".join([*lines, *(self.holders or ("code in C++",))])


@dataclasses.dataclass(frozen=True, repr=False)
class Leaks:
    """What :func:`leaks` found. It holds no tensor, and is false if there is nothing.

    Attributes:
        tensors: The tensors that outlived their transforms.
        hidden_levels: How many levels exist besides those and the ones that run on this thread:
            pullbacks and graphs hold them, or other threads run them.
    """

    tensors: tuple[Leak, ...]
    hidden_levels: int

    def __bool__(self) -> bool:
        return bool(self.tensors or self.hidden_levels)

    def __str__(self) -> str:
        lines = [str(each) for each in self.tensors]
        if self.hidden_levels:
            what = "level is" if self.hidden_levels == 1 else "levels are"
            lines.append(
                f"{self.hidden_levels} {what} held by pullbacks or graphs of autograd, or "
                "running in other threads"
            )
        return "\n".join(lines) or "nothing outlived its transform"

    __repr__ = __str__


def leaks() -> Leaks:
    """Finds tensors that outlived their transform, and who holds them.

    A tensor that a function stores inside ``vmap`` keeps its level and all samples alive, and
    raises when it is used later. Looks at all objects that Python's garbage collector knows, and
    into the graphs of autograd behind them; call it where no transform runs, to see all.

    Returns:
        :class:`Leaks`: false if there are none. They print as text; ``tensors`` has one entry for
        each tensor, with its ``level``, ``shape``, ``dtype`` and ``holders``.

    Example::

        >>> kept = []
        >>> def f(x):
        ...     kept.append(x * 2)
        ...     return x
        >>> y = vmap(f)(torch.ones(8, 3))
        >>> (leak,) = functorch_ext.debug.leaks().tensors
        >>> leak.level, leak.shape
        ('vmap(level 1, 8 samples)', (3,))
        >>> kept.clear()
        >>> functorch_ext.debug.leaks()
        nothing outlived its transform
    """
    gc.collect()
    objects = gc.get_objects()
    tensors = [each for each in objects if issubclass(type(each), Tensor)]
    del objects
    found: dict[int, tuple[Tensor, list[str]]] = {}
    for tensor in tensors:
        if _outlived(tensor):
            found[id(tensor)] = (tensor, [])
    for tensor in tensors:
        for name, saved in _saved_in_graph(tensor):
            _, names = found.setdefault(id(saved), (saved, []))
            names.append(f"{name}, in the graph of a tensor of shape {tuple(tensor.shape)}")
    hidden = {id(tensors), id(found), *map(id, found.values())}
    levels = {level for tensor, _ in found.values() for level in _levels_of(tensor)}
    result = []
    for tensor, names in found.values():
        described = _first_outlived(tensor)
        holders = tuple([*names, *_holders(tensor, hidden)][:_MOST_HOLDERS])
        dtype = str(tensor.dtype).removeprefix("torch.")
        result.append(Leak(name_of_level(described), tuple(tensor.shape), dtype, holders))
    running = len(_C.running_levels())
    return Leaks(tuple(result), max(0, _C.live_levels() - len(levels) - running))


def _planes(tensor: Tensor) -> Iterator[tuple[Any, ...]]:
    while (found := _C.look_at(tensor)) is not None:
        yield found
        tensor = found[0]


def _outlived(tensor: Tensor) -> bool:
    return any(not running for _, _, _, _, running, _ in _planes(tensor))


def _first_outlived(tensor: Tensor) -> tuple[str, int, int]:
    return next(described for _, described, _, _, running, _ in _planes(tensor) if not running)


def _levels_of(tensor: Tensor) -> list[int]:
    return [level for _, _, level, _, running, _ in _planes(tensor) if not running]


def _saved_in_graph(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What the nodes behind a tensor have saved, of transforms that have returned."""
    nodes = [tensor.grad_fn]
    seen: set[Any] = set()
    while nodes and len(seen) < _MOST_NODES:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [each for each, _ in node.next_functions]
        for name in dir(node):
            if name.startswith("_saved_") or name == "saved_tensors":
                for saved in _tensors_in(_attribute(node, name)):
                    if saved is not tensor and _outlived(saved):
                        yield f"{node.name()}.{name.removeprefix('_saved_')}", saved


def _attribute(node: Any, name: str) -> Any:
    try:
        return getattr(node, name)
    except (RuntimeError, AttributeError):  # freed by a backward pass
        return None


def _tensors_in(value: Any) -> list[Tensor]:
    values = value if isinstance(value, tuple | list) else [value]
    return [each for each in values if isinstance(each, Tensor)]


def _holders(held: Any, hidden: set[int], depth: int = 0) -> list[str]:
    """The names by which objects of Python hold another."""
    names: list[str] = []
    referrers = gc.get_referrers(held)
    hidden = hidden | {id(referrers)}
    for holder in referrers:
        if id(holder) in hidden or (isinstance(holder, types.FrameType) and _is_part(holder)):
            continue
        names += _names_in(holder, held, hidden, depth)
    return list(dict.fromkeys(names))


def _is_part(frame: types.FrameType) -> bool:
    """Of this search itself."""
    return is_ours(frame.f_code) and frame.f_code.co_filename == __file__


def _keys_of(holder: dict[Any, Any], held: Any) -> list[Any]:
    return [key for key, value in holder.items() if value is held]


def _names_in(holder: Any, held: Any, hidden: set[int], depth: int) -> list[str]:
    # No comprehension closes over the two: they would be held by a closure of this search.
    entries: list[str] = []
    if isinstance(holder, types.FrameType):
        keys = _keys_of(holder.f_locals, held)
        where = f"{holder.f_code.co_qualname}, which runs"
        return [f"the variable {key} of {where}" for key in keys] or [where]
    if isinstance(holder, dict):
        for key in _keys_of(holder, held):
            entries += _entry(holder, key, hidden, depth)
        return entries
    if isinstance(holder, types.CellType):
        return _closures(holder, held)
    if isinstance(holder, list | tuple | set):
        kind, size = type(holder).__name__, len(holder)
        outer = _holders(holder, hidden, depth + 1) if depth < _DEEPEST else []
        return [f"{name} (a {kind} of {size})" for name in outer] or [f"a {kind}"]
    kind = type(holder).__qualname__
    attributes = getattr(holder, "__dict__", None)
    if isinstance(attributes, dict):
        return [f"the attribute {key} of a {kind}" for key in _keys_of(attributes, held)]
    return [f"a {kind}"]


def _entry(holder: dict[Any, Any], key: Any, hidden: set[int], depth: int) -> list[str]:
    """An entry of a dict: a variable of a module, an attribute, or that of a dict that is held."""
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", None) is holder:
            return [f"{module.__name__}.{key}"]
    if depth >= _DEEPEST:
        return [f"the entry {key!r} of a dict"]
    owners = [each for each in gc.get_referrers(holder) if id(each) not in hidden]
    for owner in owners:
        if getattr(owner, "__dict__", None) is holder:
            return [f"the attribute {key} of a {type(owner).__qualname__}"]
        # The dict of a class can't be had, only a proxy of it.
        if isinstance(owner, type) and vars(owner).get(key) is holder[key]:
            return [f"the attribute {key} of the class {owner.__qualname__}"]
        if isinstance(owner, types.FunctionType) and owner.__globals__ is holder:
            return [f"the global variable {key} of {owner.__module__}"]
    outer = _holders(holder, hidden | {id(owners)}, depth + 1)
    return [f"{name} (entry {key!r})" for name in outer] or [f"the entry {key!r} of a dict"]


def _closures(cell: types.CellType, held: Any) -> list[str]:
    names = []
    closures = gc.get_referrers(cell)
    if any(isinstance(each, types.FrameType) and _is_part(each) for each in closures):
        return []
    for closure in closures:
        if isinstance(closure, types.FrameType):
            names += _names_in(closure, held, set(), _DEEPEST)
        if not isinstance(closure, tuple):
            continue
        for function in gc.get_referrers(closure):
            if isinstance(function, types.FunctionType) and function.__closure__ is closure:
                name = function.__code__.co_freevars[closure.index(cell)]
                names.append(f"the variable {name} that {function.__qualname__} closes over")
    return names or ["a closure"]
