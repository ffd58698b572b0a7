"""What a traced call is found by: everything but the values of tensors."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from functorch_ext._pytree import flatten

_dispatch_keys = torch._C._dispatch_keys
_precision = torch._C._get_fp32_precision_getter
# Of these types alone a tensor is what its sizes, strides and dtype tell.
_PLAIN = (Tensor, torch.nn.Parameter, torch.nn.Buffer)


class Static:
    """A static argument in a tree of arguments: a leaf that is compared by value."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: Any) -> bool:
        return type(other) is Static and _same(self.value, other.value)

    def __hash__(self) -> int:
        return hash(self.value)


def _same(value: Any, other: Any) -> bool:
    # 1, 1.0 and True are equal to Python, but not to a program.
    return type(value) is type(other) and bool(value == other)


def key_of_tensor(tensor: Tensor) -> tuple[Any, ...]:
    """All that a graph of fixed sizes depends on."""
    return (
        tensor.dtype,
        tensor.shape,
        tensor.stride(),
        tensor.device,
        tensor.requires_grad,
        _dispatch_keys(tensor).raw_repr(),
    )


def dynamic_key(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """The same for sizes that may vary: which are 0 or 1, and which agree with each other."""
    numbers: dict[int, int] = {}

    def name(size: int) -> Any:
        return size if size < 2 else f"s{numbers.setdefault(size, len(numbers))}"

    return tuple(
        (
            tensor.dtype,
            tuple(name(size) for size in tensor.shape),
            "contiguous" if tensor.is_contiguous() else tensor.stride(),
            tensor.device,
            tensor.requires_grad,
            _dispatch_keys(tensor).raw_repr(),
        )
        for tensor in tensors
    )


def key_of_modes() -> Any:
    """The thread's modes that decide what operators do."""
    key: Any = (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.is_inference_mode_enabled(),
        torch.get_deterministic_debug_mode(),
        torch._C._get_deterministic_fill_uninitialized_memory(),
        _precision("cuda", "matmul"),
        _precision("mkldnn", "matmul"),
        torch.get_num_threads(),
    )
    if torch._C._len_torch_function_stack() > 0:
        key += (torch.get_default_device(),)
    if torch._C._is_any_autocast_enabled():
        devices = ("cpu", "cuda")
        key += tuple((torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in devices)
    return key


class Arguments:
    """The arguments of a call: the tensors in order, and the key of all the rest."""

    __slots__ = ("leaves", "positions", "rest", "structure", "tensors")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.leaves, self.structure = flatten((args, kwargs) if kwargs else args)
        self.tensors = []
        self.positions = []
        rest = []
        for position, leaf in enumerate(self.leaves):
            if isinstance(leaf, Tensor):
                if type(leaf) not in _PLAIN:
                    raise TypeError(
                        "functorch_ext.jit: arguments must be plain tensors, but got a "
                        f"{type(leaf).__name__}, a subclass whose operators can't be traced. Pass "
                        "the tensors that it is made of."
                    )
                self.tensors.append(leaf)
                self.positions.append(position)
            else:
                # 0.0 and -0.0 are equal, but not to a program.
                rest.append((type(leaf), leaf.hex() if type(leaf) is float else leaf))
        self.rest = tuple(rest)

    def key(self, dynamic: bool) -> tuple[Any, ...]:
        tensors = self.tensors
        of_tensors = (
            dynamic_key(tensors) if dynamic else tuple([key_of_tensor(each) for each in tensors])
        )
        return (self.structure, of_tensors, self.rest, key_of_modes())


class Statics:
    """Which arguments of a function are static."""

    def __init__(self, numbers: set[int], names: set[str]) -> None:
        self.numbers, self.names = numbers, names

    def __bool__(self) -> bool:
        return bool(self.numbers or self.names)

    def marked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The arguments of a call, with the static ones as leaves."""
        count = len(args)
        args = tuple(
            _static(value) if i in self.numbers or i - count in self.numbers else value
            for i, value in enumerate(args)
        )
        return args, {k: _static(v) if k in self.names else v for k, v in kwargs.items()}


def statics_of(func: Callable[..., Any], static_argnums: Any, static_argnames: Any) -> Statics:
    """Positions and names of the static arguments, where each may be given either way."""
    numbers = {static_argnums} if isinstance(static_argnums, int) else set(static_argnums)
    names = {static_argnames} if isinstance(static_argnames, str) else set(static_argnames)
    for number in numbers:
        if not isinstance(number, int):
            raise TypeError(
                "functorch_ext.jit: static_argnums must be an int or a tuple of ints, but got "
                f"{static_argnums!r}."
            )
    for name in names:
        if not isinstance(name, str):
            raise TypeError(
                "functorch_ext.jit: static_argnames must be a name or a tuple of names, but got "
                f"{static_argnames!r}."
            )
    if not numbers and not names:
        return Statics(numbers, names)
    try:
        parameters = list(inspect.signature(func).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    by_position = {p.name: i for i, p in enumerate(parameters) if p.kind is p.POSITIONAL_OR_KEYWORD}
    for name, position in by_position.items():
        if position in numbers or position - len(parameters) in numbers:
            names.add(name)
        elif name in names:
            numbers.add(position)
    return Statics(numbers, names)


def _static(value: Any) -> Static:
    try:
        hash(value)
    except TypeError:
        raise ValueError(
            "functorch_ext.jit: a static argument must be hashable, so that a later call can be "
            f"compared with it, but got {value!r} of type {type(value).__name__}. Use a tuple "
            "instead of a list, or a frozen dataclass."
        ) from None
    return Static(value)
