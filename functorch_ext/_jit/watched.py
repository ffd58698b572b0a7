"""What a traced function found in Python and would find anew at each call.

A graph holds the tensors that its function closed over. Where they come from a module, a closure or
a global variable, these places are looked at before each call; and so are the modules' training
flags. If one has changed, the function is traced again.
"""

import types
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

# A dict and a key, or a closure's cell and nothing; and what is there.
Place = tuple[Any, Any, Any]


class ModulesThatRun:
    """Notes the modules that are called inside a with-block."""

    def __init__(self) -> None:
        self.found: dict[int, nn.Module] = {}

    def __enter__(self) -> "ModulesThatRun":
        self._handle = register_module_forward_pre_hook(
            lambda module, args: self.found.update({id(module): module})
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._handle.remove()


def places_of(func: Any, modules: Iterable[nn.Module], tensors: list[Tensor]) -> list[Place]:
    """The places of training flags, and of the tensors that were closed over."""
    known = {id(tensor) for tensor in tensors}
    found: list[Place] = []
    for module in modules:
        found.append((module.__dict__, "training", module.training))
        for table in (module._parameters, module._buffers):
            found += [(table, name, each) for name, each in table.items() if id(each) in known]
    for function in _functions_in(func):
        names = function.__globals__
        for name in function.__code__.co_names:
            if id(names.get(name)) in known:
                found.append((names, name, names[name]))
        for cell in function.__closure__ or ():
            if id(_content(cell)) in known:
                found.append((cell, None, cell.cell_contents))
    return found


def is_same(place: Place) -> bool:
    """Is there what was there?"""
    where, key, value = place
    found = _content(where) if isinstance(where, types.CellType) else where.get(key)
    return found is value


def _functions_in(func: Any) -> list[types.FunctionType]:
    """The function, and those that it closes over: transforms close over what they transform."""
    found: list[types.FunctionType] = []
    pending = [func]
    while pending:
        each = pending.pop()
        each = getattr(each, "__func__", each)
        if isinstance(each, types.FunctionType) and each not in found:
            found.append(each)
            pending += [_content(cell) for cell in each.__closure__ or ()]
    return found


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # of a variable that isn't set yet
        return None
