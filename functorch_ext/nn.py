"""Modules as functions of their parameters: functional_call, stack_module_state and friends.

The transforms differentiate and map functions, and a module's parameters are hidden inside it.
``functional_call`` makes them arguments. It does so by swapping entries of the tables in which a
module keeps its tensors (``_parameters`` and ``_buffers``) for the time of one call.
"""

import inspect
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from functorch_ext import _C

__all__ = ["functional_call", "replace_all_batch_norm_modules_", "stack_module_state"]

# Their calls do not read the tables that we swap: they have compiled code and replicas.
_NOT_SWAPPABLE = (torch.jit.ScriptModule, nn.DataParallel)

# Where a value goes: the table, the entry's name in it, what the caller names it, and the value.
_Entry = tuple[dict[str, Any], str, str, Any]


class _Running(threading.local):
    """The calls that run in this thread: each module, with its values or their places."""

    def __init__(self) -> None:
        self.calls: list[tuple[nn.Module, dict[str, Tensor] | list[_Entry]]] = []


running = _Running()


def functional_call(
    module: nn.Module,
    parameter_and_buffer_dicts: dict[str, Tensor] | Sequence[dict[str, Tensor]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Calls a module with the given tensors in place of its parameters and buffers.

    The module is as before when the call returns or raises. Calls nest.

    A module has one set of parameters for all threads. So while a thread calls it with others, one
    that does the same waits until it is done; it gets a ``RuntimeError`` if it would wait forever,
    because the two wait for each other or one call takes longer than a minute. A plain call
    ``module(x)`` from another thread meanwhile sees the given tensors.

    Args:
        module: the module to call.
        parameter_and_buffer_dicts: from names, as ``module.named_parameters()`` gives them, to
            tensors. Or several such dicts without common keys. What is not named keeps the
            module's own tensor. A buffer that the module assigns anew lands in the dict (where
            a single one was given); one that it writes in place is the dict's own tensor anyway.
        args: the positional arguments: a tuple, or one argument that is not a tuple.
        kwargs: the keyword arguments.
        tie_weights: where the module holds one tensor under several names, a value given for one
            of the names stands for all of them.
        strict: demand exactly the names of the module's parameters and buffers.

    Returns:
        What the module returns.

    Raises:
        ValueError: a key in several dicts, or different values for tied names.
        RuntimeError: missing or unexpected names with ``strict``; a scripted, a DataParallel or an
            FSDP module; one that another thread doesn't stop calling with other tensors.
        TypeError: a value that is not a tensor, or a name of something that is not a tensor.
        AttributeError: a name that leads into a submodule which is not there.

    For a parametrized module (``torch.nn.utils.parametrize``) the key ``weight`` stands for the
    weight itself, with no parametrization run; ``parametrizations.weight.original`` stands for what
    the parametrization is computed from.

    Example::

        >>> model = torch.nn.Linear(3, 2)
        >>> parameters = dict(model.named_parameters())
        >>> loss = lambda parameters, x: functional_call(model, parameters, (x,)).sum()
        >>> grad(loss)(parameters, torch.ones(3))["bias"]
        tensor([1., 1.])
    """
    _check_module(module)
    given = _one_dict(parameter_and_buffer_dicts)
    values = given
    if tie_weights and _C.has_tied_tensors(module):
        values = _with_tied_names(module, given)
    if strict:
        _check_names(module, values)
    args = () if args is None else args if isinstance(args, tuple) else (args,)

    if type(kwargs) is not dict:
        if not isinstance(kwargs, (Mapping, type(None))):
            kind = type(kwargs).__name__
            raise TypeError(
                f"functorch_ext.functional_call: kwargs must be a dict or None, got {kind}"
            )
        kwargs = dict(kwargs or {})

    calls = running.calls
    calls.append((module, values))
    try:
        # In one call to the engine, where all names are those of parameters and buffers.
        result = _C.call_with_state(module, values, given, args, kwargs)
        if result is not None:
            return result[0]
        return _C.call_with_entries(module, _entries(module, values), given, args, kwargs)
    finally:
        calls.pop()


def stack_module_state(
    models: Sequence[nn.Module] | nn.ModuleList,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Stacks the parameters and buffers of several models of one architecture.

    Together with ``functional_call`` and ``vmap`` it runs an ensemble as one batched computation.

    Args:
        models: at least one; all of one class, with parameters and buffers of the same names and
            shapes, and all in training mode or all in evaluation mode.

    Returns:
        The stacked parameters and the stacked buffers, by name, with a new dimension 0 of the
        number of models. The tensors are leaves that require grad where the models' own do.

    Raises:
        RuntimeError: no models, or models that differ.
        TypeError: something that isn't a module.

    Example::

        >>> models = [torch.nn.Linear(3, 2) for _ in range(5)]
        >>> parameters, buffers = stack_module_state(models)
        >>> call = lambda p, b, x: functional_call(models[0], (p, b), (x,))
        >>> vmap(call, in_dims=(0, 0, None))(parameters, buffers, torch.ones(4, 3)).shape
        torch.Size([5, 4, 2])
    """
    # A ModuleList, a Sequential.
    is_container = isinstance(models, nn.Module) and isinstance(models, Iterable)
    if not (isinstance(models, Sequence) or is_container) or not all(
        isinstance(model, nn.Module) for model in models
    ):
        raise TypeError(
            "functorch_ext.stack_module_state: models must be a list of torch.nn.Module, but got "
            + (f"one {type(models).__name__}" if isinstance(models, nn.Module) else f"{models!r}")
        )
    if len(models) == 0:
        raise RuntimeError("functorch_ext.stack_module_state: Expected at least one model, got 0")
    for index, model in enumerate(models):
        if type(model) is not type(models[0]):
            raise RuntimeError(
                "functorch_ext.stack_module_state: Expected all models to be of the same class, "
                f"but model 0 is a {type(models[0]).__name__} and model {index} is a "
                f"{type(model).__name__}"
            )
        if model.training != models[0].training:
            raise RuntimeError(
                "functorch_ext.stack_module_state: Expected all models to have the same "
                f"training/eval mode, but model 0 has training={models[0].training} and model "
                f"{index} has "
                f"training={model.training}"
            )
    parameters = _stack_tensors([dict(model.named_parameters()) for model in models])
    buffers = _stack_tensors([dict(model.named_buffers()) for model in models])
    return parameters, buffers


def replace_all_batch_norm_modules_(root: nn.Module) -> nn.Module:
    """Makes every batch norm in ``root`` use the batch's statistics alone, in place.

    Running statistics are updated in place, and inside ``vmap`` there is no one value to write:
    every sample has its own. This drops them: ``running_mean``, ``running_var`` and
    ``num_batches_tracked`` become None, ``track_running_stats`` False.

    Args:
        root: the module to change, a batch norm itself or a module that contains some.

    Returns:
        ``root``.

    Example::

        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        >>> list(dict(replace_all_batch_norm_modules_(model).named_buffers()))
        []
    """
    for module in root.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.running_mean = None
            module.running_var = None
            module.num_batches_tracked = None
            module.track_running_stats = False
    return root


def _check_module(module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(
            "functorch_ext.functional_call: expected a torch.nn.Module, got "
            f"{type(module).__name__}"
        )
    if isinstance(module, _NOT_SWAPPABLE):
        raise RuntimeError(
            f"functorch_ext.functional_call: a {type(module).__name__} cannot be called with "
            "other parameters; "
            "pass the plain module that it was made from"
        )
    # Not imported: nothing is sharded. (It takes long to import.)
    sharding = sys.modules.get("torch.distributed.fsdp")
    if sharding and _C.has_module_of(module, sharding.FSDPModule):
        # Its hooks gather its own parameters, and put them in place of the given ones.
        raise RuntimeError(
            f"functorch_ext.functional_call: {type(module).__name__} is or has an FSDPModule "
            "(fully_shard), "
            "which computes with its own parameters whatever it is given. Pass a module that is "
            "not sharded, with whole parameters (parameter.full_tensor())"
        )


def _one_dict(dicts: Any) -> dict[str, Tensor]:
    """The dict itself, or the union of several without common keys."""
    if isinstance(dicts, dict):
        return dicts
    if not isinstance(dicts, list | tuple) or not all(isinstance(d, dict) for d in dicts):
        wanted = (
            "all elements of parameter_and_buffer_dicts to be dictionaries"
            if isinstance(dicts, list | tuple)
            else "parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts"
        )
        raise ValueError(
            f"functorch_ext.functional_call: Expected {wanted}, but got {_describe_types(dicts)}"
            + (". Write dict(module.named_parameters())" if isinstance(dicts, Iterator) else "")
        )
    union: dict[str, Tensor] = {}
    for one in dicts:
        repeated = union.keys() & one.keys()
        if repeated:
            raise ValueError(
                f"functorch_ext.functional_call: {_quote(repeated)} appeared in multiple "
                "dictionaries; give each value once"
            )
        union.update(one)
    return union


def _describe_types(dicts: Any) -> str:
    name = type(dicts).__name__
    if isinstance(dicts, list | tuple):
        return f"a {name} of ({', '.join(type(one).__name__ for one in dicts)})"
    return name


def _with_tied_names(root: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """``given``, with the value of a tied tensor entered under all its names."""
    values = dict(given)
    first_key: dict[int, str] = {}
    for key, tensor, names in _C.names_of_same(root, given):
        first = first_key.setdefault(id(tensor), key)
        if given[first] is not given[key]:
            raise ValueError(
                f"functorch_ext.functional_call: different values for {_quote([first, key])}, "
                "which are names of "
                "one tensor in the module; give one value, or pass tie_weights=False"
            )
        values.update(dict.fromkeys(names, given[key]))
    return values


def _check_names(root: nn.Module, values: dict[str, Tensor]) -> None:
    names = set(_C.tensor_names(root))
    unexpected, missing = values.keys() - names, names - values.keys()
    problems = []
    if unexpected:
        problems.append(f"Unexpected key(s): {_quote(unexpected)}")
    if missing:
        problems.append(f"Missing key(s): {_quote(missing)}")
    if problems:
        raise RuntimeError(
            "functorch_ext.functional_call: with strict=True the names must be those of the "
            f"parameters and buffers of {type(root).__name__}. {'. '.join(problems)}"
        )


def _entries(root: nn.Module, values: dict[str, Tensor]) -> list[_Entry]:
    """Where each value goes, of whatever kind its name is."""
    entries: list[_Entry] = []
    for key, value in values.items():
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(
                f"functorch_ext.functional_call: the value for '{key}' must be a tensor, "
                f"got {type(value).__name__}"
            )
        if not isinstance(key, str):
            raise TypeError(
                f"functorch_ext.functional_call: names must be strings, got {type(key).__name__}"
            )
        path, _, name = key.rpartition(".")
        owner = _submodule(root, path, key)
        for table in (owner._parameters, owner._buffers):
            if name in table:
                entries.append((table, name, key, value))
                break
        else:
            entries.append(_unregistered(owner, name, key, value))
    return entries


def _submodule(root: nn.Module, path: str, key: str) -> nn.Module:
    """The module that ``path`` leads to."""
    module = root
    for name in path.split(".") if path else ():
        child = module.__dict__["_modules"].get(name)
        if child is None:
            child = getattr(module, name, None)  # A module may be kept out of the registered ones.
            if not isinstance(child, nn.Module):
                raise AttributeError(
                    f"functorch_ext.functional_call: '{key}': {type(module).__name__} has no "
                    f"submodule '{name}'"
                )
        module = child
    return module


class _Given(nn.Module):
    """Stands in for a parametrization whose result is given."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self) -> Tensor:
        return self.value


def _unregistered(owner: nn.Module, name: str, key: str, value: Tensor) -> _Entry:
    """The entry for a name that is neither a parameter nor a buffer.

    It may be a parametrized tensor, a tensor kept as a plain attribute, or not there at all: then
    the module has it as an attribute during the call.
    """
    parametrizations = owner._modules.get("parametrizations")
    if parametrizations is not None and name in parametrizations._modules:
        return parametrizations._modules, name, key, _Given(value)
    if not name:
        raise KeyError(f"functorch_ext.functional_call: the name '{key}' is empty or ends in a dot")
    is_property = inspect.isdatadescriptor(getattr(type(owner), name, None))
    current = owner.__dict__.get(name, getattr(type(owner), name, None))
    if is_property or name in owner._modules or not isinstance(current, Tensor | None):
        raise TypeError(
            f"functorch_ext.functional_call: '{key}' is not a tensor of {type(owner).__name__} "
            "that can be replaced"
        )
    return owner.__dict__, name, key, value


def _stack_tensors(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stacks the tensors of each name."""
    for index, state in enumerate(states):
        if state.keys() != states[0].keys():
            raise RuntimeError(
                "functorch_ext.stack_module_state: expected models with the same parameters and "
                "buffers, but "
                f"{_quote(state.keys() ^ states[0].keys())} is not in both model 0 and model "
                f"{index}"
            )
    return {name: _stack(name, [state[name] for state in states]) for name in states[0]}


def _stack(name: str, tensors: list[Tensor]) -> Tensor:
    first = tensors[0]
    for index, tensor in enumerate(tensors):
        for what, mine, others in (
            ("requires_grad", first.requires_grad, tensor.requires_grad),
            ("shape", tuple(first.shape), tuple(tensor.shape)),
        ):
            if mine != others:
                raise RuntimeError(
                    f"functorch_ext.stack_module_state: Expected '{name}' from each model to have "
                    f"the same .{what}, but it is {mine} in model 0 and {others} in model {index}"
                )
    return torch.stack(tensors).detach().requires_grad_(first.requires_grad)


def _quote(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))
