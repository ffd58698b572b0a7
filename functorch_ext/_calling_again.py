"""Functions that are called again, after a functional_call, with the tensors that it had in place.

A checkpoint's function runs once more in the backward pass. By then the modules that it reads have
their own parameters back, and its arguments have lost their tangents, which end with the jvp. So
what was in place is noted at the first call, and put there again.
"""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from functorch_ext import _C
from functorch_ext._pytree import flatten, unflatten
from functorch_ext._stand_ins import given_here
from functorch_ext.nn import _entries, _Entry, _submodule, running

# Of a recurrent layer: lists that it makes anew when its weights are others.
_LISTS = ("_flat_weights", "_flat_weight_refs")


def with_state_of_running_calls(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the tensors that functional_calls of this thread have in place now.

    It is the function itself if none runs.
    """
    calls = running.calls
    if not calls:
        return function
    places: dict[tuple[int, str], _Entry] = {}
    for index, (root, values) in enumerate(calls):
        if isinstance(values, dict):
            values = _places(root, values)
            calls[index] = root, values  # for the next checkpoint of this call
        places.update({(id(place[0]), place[1]): place for place in values})
    entries = [
        (table, name, key, given_here(table[name]))
        for table, name, key, _ in places.values()
        if name in table
    ]
    reader = _Reader(function, [root for root, _ in calls])
    return functools.partial(_call_again, reader, entries)


def with_tangents_of(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[..., Any]:
    """The function, which pushes the tangents of these arguments forward again.

    It is the function itself if they have none, or some on planes below their own.
    """
    # By the number of the tensor: PyTorch's options are among the arguments here, and not later.
    tangents: dict[int, Tensor] = {}
    tensors = [leaf for leaf in flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    for number, tensor in enumerate(tensors):
        tangent = _C.tangent_of(tensor)
        if tangent is not None:
            tangents[number] = tangent
        while (described := _C.describe(tensor)) is not None:
            tensor = described[0]
            if _C.tangent_of(tensor) is not None:
                return function
    return functools.partial(_push_again, function, tangents) if tangents else function


def _push_again(
    function: Callable[..., Any], tangents: dict[int, Tensor], *args: Any, **kwargs: Any
) -> Any:
    leaves, structure = flatten((args, kwargs))
    tensors = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    places = [tensors[number] for number in tangents]
    primals = [leaves[place] for place in places]
    if all(_C.tangent_of(primal) is not None for primal in primals):  # the jvp still runs
        return function(*args, **kwargs)

    def body(frame: _C.ForwardFrame) -> Any:
        duals = frame.make_dual(primals, [*tangents.values()])
        for place, dual in zip(places, duals, strict=True):
            leaves[place] = dual
        args, kwargs = unflatten(structure, leaves)
        return function(*args, **kwargs)

    return _C.run_forward_again(body, primals)


class _Reader(nn.Module):
    """The function, as a module of which other threads can tell what it reads."""

    def __init__(self, function: Callable[..., Any], roots: list[nn.Module]) -> None:
        super().__init__()
        self.function = function
        self.roots = nn.ModuleList(roots)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def _call_again(reader: _Reader, entries: list[_Entry], *args: Any, **kwargs: Any) -> Any:
    if all(table.get(name) is value for table, name, _, value in entries):
        # The functional_call still runs, perhaps in another thread, which waits for this one.
        return reader(*args, **kwargs)
    running.calls.append((reader, entries))
    try:
        return _C.call_with_entries(reader, entries, {}, args, kwargs)
    finally:
        running.calls.pop()


def _places(root: nn.Module, values: dict[str, Tensor]) -> list[_Entry]:
    """Where a functional_call puts its values."""
    places = _entries(root, values)
    for path in dict.fromkeys(key.rpartition(".")[0] for key in values):
        state = _submodule(root, path, path).__dict__
        places.extend((state, name, name, None) for name in _LISTS if name in state)
    return places
