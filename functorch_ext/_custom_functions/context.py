"""The ``ctx`` of a custom autograd function, where its staticmethods run on tensors of a frame that
ends before autograd asks for what they saved."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function, function

from functorch_ext import _C
from functorch_ext._custom_functions.own_tensors import OwnTensors
from functorch_ext._pytree import flatten, leaves_of, map_tensors, unflatten

Dim = int | None


class Context:
    """Stands in for autograd's own ``ctx``: takes what a forward saves, gives it to a backward."""

    # Attributes of the user's go to __dict__, which holds nothing else.
    __slots__ = (
        "__dict__",
        "_dirty",
        "_for_backward",
        "_for_forward",
        "_materialize",
        "_non_differentiable",
        "needs_input_grad",
        "saved_tensors",
    )

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: Sequence[Tensor | None] = ()
        self._for_backward: tuple[Tensor | None, ...] = ()
        self._for_forward: tuple[Tensor | None, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._non_differentiable: tuple[Tensor, ...] = ()
        self._materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        self._for_backward = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        self._for_forward = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        self._non_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        self._materialize = value

    def kept(self) -> list[Any]:
        """All that the forward left for the backward or jvp, tensors and others."""
        return leaves_of((self._for_backward, self._for_forward, self.__dict__))


class Recording:
    """What a forward left in a :class:`Context`, in terms of values and their bdims.

    Each tensor is an index into ``values``: the values of the arguments first, then those of the
    outputs, then of the others that were saved, ``extras``. So it can be filled in again with the
    tensors of any plane.

    Args:
        context: What the forward left its marks and tensors in.
        own: The vmap's tensors, on the level that the forward ran on.
        samples: The arguments and outputs of the forward.
        values: What they stand for.
        dims: The bdims of the values.
    """

    def __init__(
        self, context: Context, own: OwnTensors, samples: list[Any], values: list[Any],
        dims: list[Dim],
    ) -> None:  # fmt: skip
        level = own.level
        samples, self.values, self.dims = list(samples), list(values), list(dims)
        known: dict[int, int] = {}
        self._outside = {i for i, sample in enumerate(samples) if is_outside(level, sample)}
        for index, sample in enumerate(samples):
            known.setdefault(id(sample), index)
        first_extra = len(samples)

        def index_of(tensor: Tensor) -> int:
            if id(tensor) not in known:
                known[id(tensor)] = len(samples)
                samples.append(tensor)  # and keeps its id from being used again
                value, dim = level.unwrap(tensor)
                own.check((value,))
                self.values.append(value)
                self.dims.append(dim)
            return known[id(tensor)]

        saved = (context._for_backward, context._for_forward, context.__dict__)
        stays = lambda leaf: is_outside(level, leaf) and leaf.is_leaf
        leaves, self._structure = flatten(saved)
        is_tensor = [
            isinstance(leaf, Tensor) and (id(leaf) in known or not (stays(leaf) or own.holds(leaf)))
            for leaf in leaves
        ]
        self._leaves = [
            None if tensor else leaf for leaf, tensor in zip(leaves, is_tensor, strict=True)
        ]
        self._positions = [i for i, tensor in enumerate(is_tensor) if tensor]
        self.indices = [index_of(leaves[i]) for i in self._positions]
        self._dirty = [index_of(tensor) for tensor in context._dirty]
        self._non_differentiable = [index_of(tensor) for tensor in context._non_differentiable]
        self._non_differentiable += range(first_extra, len(samples))
        self._materialize = context._materialize
        self.extra_dims = self.dims[first_extra:]

    def release(self) -> list[Tensor]:
        """The values of the extras. All values are forgotten: autograd keeps what it needs."""
        values, self.values = self.values, []
        return values[len(values) - len(self.extra_dims) :]

    def mark(self, ctx: Any, tensors: Sequence[Any]) -> None:
        """Repeats the marks on autograd's own ctx, for the given stand-ins of ``values``."""
        ctx.set_materialize_grads(self._materialize)
        ctx.mark_dirty(*[tensors[i] for i in self._dirty])
        ctx.mark_non_differentiable(*[tensors[i] for i in self._non_differentiable])

    def repeat(self, ctx: Any, tensors: Sequence[Any]) -> None:
        """Leaves in autograd's own ctx what the forward left, with those stand-ins."""
        self.mark(ctx, tensors)
        for_backward, for_forward, attributes = self._filled([tensors[i] for i in self.indices])
        ctx.save_for_backward(*for_backward)
        ctx.save_for_forward(*for_forward)
        for name, value in attributes.items():
            setattr(ctx, name, value)

    def context(
        self, needs: tuple[bool, ...], own: OwnTensors, saved: Sequence[Tensor], forward: bool
    ) -> Context:
        """The ctx for a backward (or jvp) on another level; ``saved`` stands for ``indices``."""
        context = Context(needs)
        samples = [
            value if i in self._outside else own.level.wrap(value, self.dims[i])
            for value, i in zip(saved, self.indices, strict=True)
        ]
        own.note(saved, samples)
        for_backward, for_forward, attributes = map_tensors(own.of, self._filled(samples))
        context.saved_tensors = for_forward if forward else for_backward
        context.__dict__.update(attributes)
        return context

    def _filled(self, tensors: list[Tensor]) -> Any:
        leaves = list(self._leaves)
        for position, tensor in zip(self._positions, tensors, strict=True):
            leaves[position] = tensor
        return unflatten(self._structure, leaves)


def is_outside(level: _C.Level, tensor: Any) -> bool:
    """Is this a tensor by which planes below the level differentiate, and not of the level?"""
    return (
        isinstance(tensor, Tensor)
        and _C.requires_grad_here(tensor)
        and level.unwrap(tensor)[0] is tensor
    )


def call_forward(cls: type[Function], context: Context, args: tuple[Any, ...]) -> Any:
    """The forward of a custom function of either style."""
    if not has_setup(cls):
        return cls.forward(context, *args)
    outputs = cls.forward(*args)
    cls.setup_context(context, args, outputs)
    return outputs


def call_backward(cls: type[Function], context: Context, cotangents: list[Any]) -> tuple[Any, ...]:
    """The backward of a custom function, which may be called vjp."""
    backward = cls.backward if cls.vjp is Function.vjp else cls.vjp
    boxed = getattr(cls, "boxed_grads_call", False)
    return as_tuple(backward(context, cotangents) if boxed else backward(context, *cotangents))


def has_setup(cls: type[Function]) -> bool:
    """Does the function have a setup_context, so that its forward takes no ctx?"""
    return cls.setup_context is not Function.setup_context


_ONCE = function.once_differentiable(lambda ctx: None).__code__


def is_once_differentiable(backward: Callable[..., Any]) -> bool:
    """Was a backward decorated with ``once_differentiable``?"""
    return getattr(backward, "__code__", None) is _ONCE


def as_tuple(outputs: Any) -> tuple[Any, ...]:
    """The outputs of a custom function, one or several."""
    return outputs if isinstance(outputs, tuple) else (outputs,)
