"""A call of a function that has rules of its own: what a ``torch.autograd.Function`` gets of it."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from functorch_ext._describing import kind_of
from functorch_ext._pytree import Tree, flatten, name_of_leaf, unflatten


class RuleCall:
    """The arguments of one call, and later its outputs: tensors on one side, the rest on the other.

    Attributes:
        tensors: The tensors among the leaves of the arguments.
    """

    def __init__(self, args: tuple[Any, ...]) -> None:
        self._leaves, self._structure = flatten(args)
        self._places = [i for i, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor)]
        self.tensors: list[Tensor] = [self._leaves[i] for i in self._places]
        self._leaves = [None if isinstance(x, Tensor) else x for x in self._leaves]  # no cycle
        self._outputs: tuple[list[Any], Any] | None = None

    def args(self, tensors: Any) -> tuple[Any, ...]:
        """The arguments with these in place of the tensors."""
        return self.like_args(tensors, self._leaves)

    def like_args(self, values: Any, others: list[Any] | None = None) -> tuple[Any, ...]:
        """A tuple as the arguments are, with a value for each tensor, and ``None`` for the rest."""
        leaves = [None] * len(self._leaves) if others is None else list(others)
        for place, value in zip(self._places, values, strict=True):
            leaves[place] = value
        return unflatten(self._structure, leaves)

    def of_tensors(self, what: str, tree: Tree) -> list[Any]:
        """What a rule returned for each argument: one entry per tensor of the arguments.

        ``None`` stands for a whole argument, or for a leaf.
        """
        if not isinstance(tree, tuple) or len(tree) != self._structure.num_children:
            raise TypeError(
                f"functorch_ext: {what} must return a tuple of {self._structure.num_children}, one "
                f"entry per differentiable argument, but returned {kind_of(tree)}"
                + (f" of {len(tree)}." if isinstance(tree, tuple) else ".")
            )
        leaves: list[Any] = []
        for number, (part, structure) in enumerate(
            zip(tree, self._structure.children(), strict=True)
        ):
            given, found = ([None] * structure.num_leaves, structure)
            if part is not None:
                given, found = flatten(part)
            if found != structure:
                raise TypeError(
                    f"functorch_ext: {what} must return a structure as the argument's for entry "
                    f"{number}, {structure}, but returned {found}."
                )
            leaves += given
        return [leaves[place] for place in self._places]

    def keep_outputs(self, outputs: Tree) -> tuple[Tensor, ...]:
        """The tensors among the outputs."""
        leaves, structure = flatten(outputs)
        self._outputs = [None if isinstance(x, Tensor) else (x,) for x in leaves], structure
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def outputs(self, tensors: Any) -> Tree:
        """The outputs with these in place of the tensors."""
        assert self._outputs is not None
        others, structure = self._outputs
        given = iter(tensors)
        return unflatten(structure, [next(given) if x is None else x[0] for x in others])

    def like_outputs(self, values: Any) -> Tree:
        """As the outputs are, with a value for each tensor, and ``None`` for the rest."""
        assert self._outputs is not None
        others, structure = self._outputs
        given = iter(values)
        return unflatten(structure, [next(given) if x is None else None for x in others])

    def tensor_outputs(self, what: str, tree: Tree) -> list[Any]:
        """What a rule returned in the structure of the outputs: one entry per tensor of theirs."""
        assert self._outputs is not None
        others, structure = self._outputs
        leaves, found = flatten(tree)
        if found != structure:
            raise TypeError(
                f"functorch_ext: {what} must return the structure that the function returns, "
                f"{structure}, but returned {found}."
            )
        return [leaf for leaf, other in zip(leaves, others, strict=True) if other is None]


def output_and(other: str, rule: str, returned: Any) -> tuple[Any, Any]:
    """What a rule returned, which must be the output and something else."""
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(
            f"functorch_ext.{rule} must return a pair of the output and {other}, but returned "
            f"{type(returned).__name__}."
        )
    return returned


def apart(outputs: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The outputs, none of which is an input or a view: their tangents needn't be views either."""
    given = {id(tensor) for tensor in inputs}
    return tuple(x.data if id(x) in given or x._is_view() else x for x in outputs)


def name_of(func: Callable[..., Any]) -> str:
    """How messages call a function."""
    return getattr(func, "__name__", repr(func))


def is_like(derivative: Tensor, tensor: Tensor) -> bool:
    """Can it be a tangent or cotangent of the tensor?"""
    return (
        derivative.shape == tensor.shape
        and derivative.dtype == tensor.dtype
        and derivative.device == tensor.device
    )


def words(tensor: Tensor, other: Any) -> str:
    """What must agree with another, as messages put it; the device where it doesn't."""
    text = f"shape {tuple(tensor.shape)} and dtype {tensor.dtype}"
    if isinstance(other, Tensor) and other.device != tensor.device:
        text += f" on device {tensor.device}"
    return text


class Bound:
    """A function's arguments in order of its parameters, and apart those not differentiated by."""

    def __init__(self, name: str, func: Callable[..., Any], nondiff_argnums: Any = ()) -> None:
        if not callable(func):
            raise TypeError(f"functorch_ext.{name}: expected a function, but got {kind_of(func)}.")
        if isinstance(nondiff_argnums, int):
            nondiff_argnums = (nondiff_argnums,)
        self.nondiff = tuple(nondiff_argnums)
        if any(not isinstance(i, int) or i < 0 for i in self.nondiff):
            raise ValueError(
                f"functorch_ext.{name}: nondiff_argnums must be positions from 0, but got "
                f"{nondiff_argnums!r}."
            )
        self._func = func

    @functools.cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self._func)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if not kwargs and not self._has_defaults:
            return args
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.kwargs:
            raise TypeError(
                "functorch_ext: a function with rules of its own takes no keyword-only arguments, "
                f"but got {', '.join(bound.kwargs)}. Make them positional."
            )
        return bound.args

    @functools.cached_property
    def _has_defaults(self) -> bool:
        try:
            parameters = self._signature.parameters.values()
        except ValueError:  # a builtin without a signature
            return False
        return any(each.default is not inspect.Parameter.empty for each in parameters)

    def split(self, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Those not differentiated by, and the others."""
        if not self.nondiff:
            return (), args
        others = tuple(arg for i, arg in enumerate(args) if i not in self.nondiff)
        return tuple(args[i] for i in self.nondiff), others

    def name_of_argument(self, number: int) -> str:
        """The name of one of those differentiated by."""
        places = range(number + len(self.nondiff) + 1)
        position = [i for i in places if i not in self.nondiff][number]
        try:
            parameters = list(self._signature.parameters.values())
        except ValueError:  # a builtin without a signature
            parameters = []
        for index, each in enumerate(parameters):
            if each.kind is inspect.Parameter.VAR_POSITIONAL:
                return f"{each.name}[{position - index}]"
            if index == position:
                return each.name
        return f"args[{position}]"

    def joined(self, nondiff: tuple[Any, ...], others: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments again."""
        args = list(others)
        for position, arg in sorted(zip(self.nondiff, nondiff, strict=True), key=lambda x: x[0]):
            args.insert(position, arg)
        return tuple(args)


class BoundCall(RuleCall):
    """A call of a function, some of whose arguments aren't differentiated by."""

    def __init__(
        self,
        func: Callable[..., Any],
        bound: Bound,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.nondiff, others = bound.split(bound(args, kwargs))
        super().__init__(others)
        self._func, self._bound = func, bound

    def all_args(self, tensors: Any) -> tuple[Any, ...]:
        """All arguments, with these in place of the tensors."""
        return self._bound.joined(self.nondiff, self.args(tensors))

    def plain(self, tensors: Any) -> Any:
        """What the function itself returns."""
        return self._func(*self.all_args(tensors))

    def name_of_tensor(self, index: int) -> str:
        """How the function would write a tensor of its arguments: ``x``, or ``tree['a']``."""
        number, inside = 0, self._places[index]
        children = self._structure.children()
        while inside >= children[number].num_leaves:
            inside -= children[number].num_leaves
            number += 1
        tree = unflatten(children[number], list(range(children[number].num_leaves)))
        return name_of_leaf(self._bound.name_of_argument(number), tree, inside)


class Ruled:
    """What stands for a function that has a rule of its own, as a function or a method."""

    def __init__(self, name: str, func: Callable[..., Any], nondiff_argnums: Any = ()) -> None:
        self._name, self._func = name, func
        self._bound = Bound(name, func, nondiff_argnums)
        functools.update_wrapper(self, func)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function, with its rule."""
        raise NotImplementedError

    def no_rule(self, definition: str) -> AttributeError:
        """The error of a call that comes before the rule."""
        name = name_of(self._func)
        return AttributeError(
            f"functorch_ext.{self._name}: {name} has no rule yet. Call {name}.{definition}."
        )
