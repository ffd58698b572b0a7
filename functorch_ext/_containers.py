"""Containers that programs register with PyTorch's pytrees: containers of every transform.

Each class in PyTorch's registry has an entry in optree's too, in a namespace of this package. What
is registered later joins when it is registered, so nothing is looked up in a transform's call.
"""

import functools
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import optree
from torch.utils import _pytree as torch_pytree

from functorch_ext import _patches

NAMESPACE = "functorch_ext"

_mirrored: dict[type, Any] = {}  # PyTorch's definitions, of the classes that have an entry

# Those that have a batch size, which vmap changes (_batch_sizes.py).
sized: set[type] = set()

# Containers of Python's own, which optree knows. Named tuples it knows by their looks.
_BUILT_IN = (tuple, list, dict, OrderedDict, defaultdict, deque)

# Containers with a dimension that their children don't have: a dimension of the one isn't one of
# the others. They stay leaves, which no transform takes for something else.
_OF_ANOTHER_SHAPE = ("LazyStackedTensorDict",)


def install() -> None:
    """Copies PyTorch's registry, and has what changes in it copied as well."""
    for name in ("_private_register_pytree_node", "_deregister_pytree_node"):
        mirroring = _then_mirror(getattr(torch_pytree, name))
        why = "containers that are registered later are containers of transforms too"
        _patches.replace(torch_pytree, name, mirroring, why, always="one call of Python")
    with torch_pytree._NODE_REGISTRY_LOCK:
        for cls in torch_pytree.SUPPORTED_NODES:
            _mirror(cls)


def _then_mirror(change: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(change)
    def changed(cls: type, *args: Any, **kwargs: Any) -> None:
        with torch_pytree._NODE_REGISTRY_LOCK:
            try:
                change(cls, *args, **kwargs)
            finally:
                _mirror(cls)

    return changed


def _mirror(cls: Any) -> None:
    """Gives optree the definition of a class that PyTorch has now, if any."""
    definition = torch_pytree.SUPPORTED_NODES.get(cls)
    if definition is _mirrored.get(cls) or _is_passed_over(cls):
        return
    if _mirrored.pop(cls, None) is not None:
        optree.unregister_pytree_node(cls, namespace=NAMESPACE)
        sized.discard(cls)
    if definition is None:
        return
    optree.register_pytree_node(
        cls,
        definition.flatten_fn,
        lambda context, children: definition.unflatten_fn(list(children), context),
        path_entry_type=optree.FlattenedEntry,
        namespace=NAMESPACE,
    )
    _mirrored[cls] = definition
    if any(base.__name__ == "TensorDictBase" for base in cls.__mro__):
        sized.add(cls)


def _is_passed_over(cls: Any) -> bool:
    return (
        not isinstance(cls, type)  # PyTorch's entry of all named tuples is a function
        or cls.__name__ in _OF_ANOTHER_SHAPE
        or cls in _BUILT_IN
        or optree.is_namedtuple_class(cls)
        or optree.is_structseq_class(cls)
    )


def keys_of(node: Any) -> list[Any] | None:
    """PyTorch's keys of the children of a registered container: a field, an index ...; ``None`` if
    the registration doesn't tell."""
    definition = _mirrored.get(type(node))
    if definition is None or definition.flatten_with_keys_fn is None:
        return None
    return [key for key, _ in definition.flatten_with_keys_fn(node)[0]]
