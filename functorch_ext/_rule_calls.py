"""A call of a function that has rules of its own: what a ``torch.autograd.Function`` gets of it."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from functorch_ext._describing import kind_of
from functorch_ext._pytree import Tree, flatten, name_of_leaf, unflatten
from functorch_ext._skeletons import Skeleton, taken_apart


class RuleCall:
    """The arguments of one call, and later its outputs: tensors on one side, the rest on the other.

    Attributes:
        tensors: The tensors among the leaves of the arguments.
    """

    _outputs: Skeleton | None = None

    def __init__(self, args: tuple[Any, ...]) -> None:
        self.tensors, self._arguments = taken_apart(args)

    def args(self, tensors: Any) -> tuple[Any, ...]:
        """The arguments with these in place of the tensors."""
        return self._arguments.filled(tensors)

    def like_args(self, values: Any) -> tuple[Any, ...]:
        """A tuple as the arguments are, with a value for each tensor, and ``None`` for the rest."""
        return self._arguments.like(values)

    def of_tensors(self, what: str, tree: Tree) -> list[Any]:
        """What a rule returned for each argument: one entry per tensor of the arguments.

        ``None`` stands for a whole argument, or for a leaf.
        """
        count = self._arguments.length
        if isinstance(tree, tuple) and len(tree) == count:
            if all([x is None or isinstance(x, Tensor) for x in tree]):
                return list(tree)
        structure = self._arguments.structure
        if not isinstance(tree, tuple) or len(tree) != structure.num_children:
            raise TypeError(
                f"functorch_ext: {what} must return a tuple of {structure.num_children}, one "
                f"entry per differentiable argument, but returned {kind_of(tree)}"
                + (f" of {len(tree)}." if isinstance(tree, tuple) else ".")
            )
        leaves: list[Any] = []
        for number, (part, child) in enumerate(zip(tree, structure.children(), strict=True)):
            given, found = ([None] * child.num_leaves, child)
            if part is not None:
                given, found = flatten(part)
            if found != child:
                raise TypeError(
                    f"functorch_ext: {what} must return a structure as the argument's for entry "
                    f"{number}, {child}, but returned {found}."
                )
            leaves += given
        return [leaves[place] for place in self._arguments.places]

    def keep_outputs(self, outputs: Tree) -> tuple[Tensor, ...]:
        """The tensors among the outputs."""
        tensors, self._outputs = taken_apart(outputs)
        return tensors

    def outputs(self, tensors: Any) -> Tree:
        """The outputs with these in place of the tensors."""
        assert self._outputs is not None
        return self._outputs.filled(tensors)

    def like_outputs(self, values: Any) -> Tree:
        """As the outputs are, with a value for each tensor, and ``None`` for the rest."""
        assert self._outputs is not None
        return self._outputs.like(values)

    def tensor_outputs(self, what: str, tree: Tree) -> list[Any]:
        """What a rule returned in the structure of the outputs: one entry per tensor of theirs."""
        assert self._outputs is not None
        values = self._outputs.values_of(tree)
        if values is None:
            raise TypeError(
                f"functorch_ext: {what} must return the structure that the function returns, "
                f"{self._outputs.structure}, but returned {flatten(tree)[1]}."
            )
        return values


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
    given = [*map(id, inputs)]
    return tuple([x.data if id(x) in given or x._is_view() else x for x in outputs])


def name_of(func: Callable[..., Any]) -> str:
    """How messages call a function."""
    return getattr(func, "__name__", repr(func))


def words(tensor: Tensor, other: Any) -> str:
    """What must agree with another, as messages put it; the device where it doesn't."""
    text = f"shape {tuple(tensor.shape)} and dtype {tensor.dtype}"
    if isinstance(other, Tensor) and other.device != tensor.device:
        text += f" on device {tensor.device}"
    return text


_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


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
        if not kwargs:
            if not self._has_defaults:
                return args
            missing = self._count - len(args)
            if 0 <= missing <= len(self._defaults):
                return args + self._defaults[len(self._defaults) - missing :]
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.kwargs:
            raise TypeError(
                "functorch_ext: a function with rules of its own takes no keyword-only arguments, "
                f"but got {', '.join(bound.kwargs)}. Make them positional."
            )
        return bound.args

    @functools.cached_property
    def _parameters(self) -> list[inspect.Parameter]:
        try:
            return list(self._signature.parameters.values())
        except ValueError:  # a builtin without a signature
            return []

    @functools.cached_property
    def _has_defaults(self) -> bool:
        return any(each.default is not inspect.Parameter.empty for each in self._parameters)

    @functools.cached_property
    def _defaults(self) -> tuple[Any, ...]:
        """Those of the last parameters, if all can be given by position."""
        if not all(each.kind in _BY_POSITION for each in self._parameters):
            return ()
        values = (each.default for each in self._parameters)
        return tuple(value for value in values if value is not inspect.Parameter.empty)

    @functools.cached_property
    def _count(self) -> int:
        return len(self._parameters)

    def split(self, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Those not differentiated by, and the others."""
        others = tuple(arg for i, arg in enumerate(args) if i not in self.nondiff)
        return tuple(args[i] for i in self.nondiff), others

    def name_of_argument(self, number: int) -> str:
        """The name of one of those differentiated by."""
        places = range(number + len(self.nondiff) + 1)
        position = [i for i in places if i not in self.nondiff][number]
        for index, each in enumerate(self._parameters):
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

    nondiff: tuple[Any, ...] = ()

    def __init__(
        self, ruled: "Ruled", rules: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._ruled, self._rules = ruled, rules
        args = ruled.bound(args, kwargs)
        if ruled.bound.nondiff:
            self.nondiff, args = ruled.bound.split(args)
        self.tensors, self._arguments = taken_apart(args)

    def all_args(self, tensors: Any) -> tuple[Any, ...]:
        """All arguments, with these in place of the tensors."""
        others = self._arguments.filled(tensors)
        return self._ruled.bound.joined(self.nondiff, others) if self.nondiff else others

    def plain(self, tensors: Any) -> Any:
        """What the function itself returns."""
        return self._ruled.func(*self.all_args(tensors))

    @property
    def name(self) -> str:
        """How messages call the function."""
        return name_of(self._ruled.func)

    def name_of_tensor(self, index: int) -> str:
        """How the function would write a tensor of its arguments: ``x``, or ``tree['a']``."""
        number, inside = 0, self._arguments.places[index]
        children = self._arguments.structure.children()
        while inside >= children[number].num_leaves:
            inside -= children[number].num_leaves
            number += 1
        tree = unflatten(children[number], list(range(children[number].num_leaves)))
        return name_of_leaf(self._ruled.bound.name_of_argument(number), tree, inside)


class Ruled:
    """What stands for a function that has a rule of its own, as a function or a method."""

    def __init__(self, name: str, func: Callable[..., Any], nondiff_argnums: Any = ()) -> None:
        bound = Bound(name, func, nondiff_argnums)
        functools.update_wrapper(self, func)
        # Afterwards: the function may be one with a rule itself, whose attributes these are too.
        self._name, self.func, self.bound = name, func, bound

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function, with its rule."""
        raise NotImplementedError

    def no_rule(self, definition: str) -> AttributeError:
        """The error of a call that comes before the rule."""
        name = name_of(self.func)
        return AttributeError(
            f"functorch_ext.{self._name}: {name} has no rule yet. Call {name}.{definition}."
        )
