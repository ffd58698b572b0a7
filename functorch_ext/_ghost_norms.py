"""Norms of the gradients of one sample, mostly without the gradients.

The gradient of a layer's weight is a product of what the layer got and the cotangent of what it
returned. Its norm follows from these two, so where that takes less, the backward pass computes
cotangents of activations alone. ``GhostNorms`` watches the functions that get parameters.
"""

import contextlib
import functools
import operator
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.linalg import vector_norm
from torch.overrides import TorchFunctionMode

from functorch_ext import _C
from functorch_ext._ghost_formulas import FORMULAS, Formula, accurate, squares
from functorch_ext._taylor.carrier import Taylor
from functorch_ext._taylor.rules import constant


class OfSample(NamedTuple):
    """What is known of the gradient of one sample.

    Attributes:
        squared_norm: of all of it.
        gradients: by the parameters that are differentiated by, of any shape.
        layers: the input of each layer that has a formula, and the cotangent of its output.
    """

    squared_norm: Tensor
    gradients: dict[str, Tensor]
    layers: list[tuple[Tensor, Tensor]]


class Layer(NamedTuple):
    """A call that has a formula: of which parameter is which, and its output's cotangent."""

    names: dict[str, str]  # by that of the function's parameter, "weight" or "bias"
    formula: Formula
    input: Tensor
    place: int  # of the cotangent among the frame's


def _on_pullback(
    pulls_back: list[bool], again: set[str], names: list[str], cotangent: Tensor
) -> None:
    """Of a layer's output. It holds no watcher, which would hold the graph that holds it."""
    if not pulls_back:  # a derivative inside, which depends on the weight
        again.update(names)


class GhostNorms(TorchFunctionMode):
    """Watches the evaluation of a sample's loss, which is to be differentiated in the frame.

    A function that has a formula gets parameters as constants. Zeros are added to its output, and
    differentiated by: their cotangents are the output's. Other functions get parameters that are
    differentiated by.

    A formula holds where the pass alone differentiates the layer, and in the pass's own level.

    Attributes:
        parameters: what the loss is to be evaluated with.
        again: the names of parameters that have been constants to one function and are used by
            another too, by one inside a transform, or by one that was differentiated inside. The
            evaluation is worth nothing then.
    """

    def __init__(
        self, frame: _C.ReverseFrame, parameters: dict[str, Tensor], explicit: set[str]
    ) -> None:
        super().__init__()
        self._frame = frame
        self._explicit = explicit
        self._depth = len(_C.running_levels())
        self._pulls_back: list[bool] = []
        self._places: dict[str, tuple[int, Tensor]] = {}
        self._inputs: list[tuple[Any, Tensor, int]] = []
        self.layers: list[Layer] = []
        self.again: set[str] = set()
        # So that the frame differentiates, even if no function gets a parameter.
        frame.differentiable([torch.zeros(())])
        self._count = 1
        # In place of the parameters themselves: whatever gets them, they are differentiated by.
        self.parameters = {
            name: self._place(name, tensor) if name in explicit else tensor
            for name, tensor in parameters.items()
        }
        self._names = {
            id(tensor): name for name, tensor in self.parameters.items() if name not in explicit
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not (self._may_hold_one(args) or (kwargs and self._may_hold_one(kwargs.values()))):
            return func(*args, **kwargs)
        used = [*self._parameters_in(args), *self._parameters_in(kwargs.values())]
        if not used or Taylor.rules.get(func) is constant:
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return _ATTENTION(*args, **kwargs)
        if len(_C.running_levels()) != self._depth:
            self.again.update(used)
            return func(*args, **kwargs)
        before = {name for layer in self.layers for name in layer.names.values()}
        self.again.update(before.intersection(used))
        if not self._explicit.union(self._places).intersection(used):
            found = self._with_formula(func, args, kwargs, used)
            if found is not None:
                return found
        args = tuple(map(self._differentiable, args))
        return func(*args, **{key: self._differentiable(each) for key, each in kwargs.items()})

    def _may_hold_one(self, values: Any) -> bool:
        """Is a parameter among them, or a list? Most calls get neither."""
        names = self._names
        for value in values:
            if id(value) in names or type(value) is tuple or type(value) is list:
                return True
        return False

    def _parameters_in(self, values: Any) -> Iterator[str]:
        for value in values:
            if id(value) in self._names:
                yield self._names[id(value)]
            elif type(value) in (list, tuple):
                yield from self._parameters_in(value)

    def _differentiable(self, value: Any) -> Any:
        if type(value) in (list, tuple):
            return type(value)(map(self._differentiable, value))
        name = self._names.get(id(value))
        if name is None:
            return value
        return self._places[name][1] if name in self._places else self._place(name, value)

    def _place(self, name: str, value: Tensor) -> Tensor:
        self._places[name] = self._count, self._frame.differentiable([value])[0]
        self._count += 1
        return self._places[name][1]

    def _with_formula(self, func: Any, args: Any, kwargs: Any, used: list[str]) -> Any:
        """The function's output, or ``None`` if it has no formula that takes less."""
        make = FORMULAS.get(func)
        formula = None if make is None else make(*args, **kwargs)
        if formula is None:
            return None
        names = {
            key: self._names[id(each)]
            for key, each in formula.parameters.items()
            if id(each) in self._names
        }
        if len(names) < len(used) or "weight" not in names:
            return None
        source = formula.input
        if _C.tangent_flows((source,)):
            self.again.update(used)
            return func(*args, **kwargs)
        self._inputs.append((func, source, source._version))
        if source.is_floating_point():
            # The input's value: how it depends on earlier zeros doesn't matter to the norm.
            source = self._frame.release(source)
        self.layers.append(Layer(names, formula, source, self._count))
        self._count += 1
        result = func(*args, **kwargs)
        zeros = result.new_zeros(()).expand(result.shape)
        output = result + self._frame.differentiable([zeros])[0]
        if output.requires_grad:
            output.register_hook(
                functools.partial(_on_pullback, self._pulls_back, self.again, used)
            )
        return output

    def pull_back(self, value: Tensor) -> list[Tensor]:
        """The cotangents of all that the frame differentiates by."""
        self._pulls_back.append(True)
        return [*map(self._frame.strip, self._frame.pull_back([value], [None], False))]

    def of_sample(self, pulled: list[Tensor]) -> OfSample:
        """The squared norm, and what the gradient is made of, from what the frame pulled back."""
        for func, given, version in self._inputs:
            if given._version != version:
                raise RuntimeError(
                    f"functorch_ext.per_sample_grad_norms: the input of {func.__name__} was "
                    "modified in place after the call, and the gradient of its weight needs it. "
                    "Modify a clone."
                )
        gradients = {name: pulled[place] for name, (place, _) in self._places.items()}
        layers = [self._in_dtype_of_weight(layer, pulled[layer.place]) for layer in self.layers]
        parts = [squares(each) for each in gradients.values()]
        for layer, (source, cotangent) in zip(self.layers, layers, strict=True):
            pair = accurate(source), accurate(cotangent)
            with outside_autocast(cotangent):
                parts += [layer.formula.squares[key](*pair) for key in layer.names]
        return OfSample(_total(parts), gradients, layers)

    def _in_dtype_of_weight(self, layer: Layer, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """The input and the cotangent: autocast computes in another."""
        dtype = self.parameters[layer.names["weight"]].dtype
        source = layer.input
        return source.to(dtype) if source.is_floating_point() else source, cotangent.to(dtype)


def rows_of(gradient: Tensor) -> Tensor:
    """A matrix with a row for each sample, of a gradient of any shape."""
    return gradient.unsqueeze(-1).flatten(1)


def norm_of(gradients: dict[str, Tensor]) -> Tensor:
    """Of one sample, that of all its gradients together."""
    return norms_of({name: each[None] for name, each in gradients.items()}, 1)[0]


def norms_of(gradients: dict[str, Tensor], samples: int) -> Tensor:
    """Of each sample, that of all its gradients together."""
    parts = [vector_norm(rows_of(accurate(each)), dim=1) for each in gradients.values()]
    return vector_norm(torch.stack(parts), dim=0) if parts else torch.zeros(samples)


_NOTHING = contextlib.nullcontext()


def outside_autocast(tensor: Tensor) -> Any:
    """A context that turns autocast off for the tensor's device, where it is on."""
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else _NOTHING


def _total(parts: list[Tensor]) -> Tensor:
    if not parts:
        return torch.zeros(())
    return functools.reduce(operator.add, parts)


def _unchecked(func: Any) -> Any:
    """The same function, which lets its parts be watched in place of itself."""
    variables = {**func.__globals__, "has_torch_function": lambda tensors: False}
    made = types.FunctionType(func.__code__, variables, func.__name__, func.__defaults__)
    made.__kwdefaults__ = func.__kwdefaults__
    return made


_ATTENTION = _unchecked(F.multi_head_attention_forward)


def of_sample(
    loss: Callable[[dict[str, Tensor]], Tensor],
    parameters: dict[str, Tensor],
    explicit: set[str],
    check: Callable[[Any], None],
) -> tuple[OfSample, list[Layer]]:
    """What is known of the gradient of the loss by the parameters.

    Args:
        loss: The loss of a sample, of the parameters.
        parameters: What it is differentiated by.
        explicit: Parameters that can't be left to formulas. Those that turn out to be are added.
        check: Raises for a loss that isn't a number.
    """

    def body(frame: _C.ReverseFrame) -> tuple[GhostNorms, list[Tensor]]:
        watch = GhostNorms(frame, parameters, explicit)
        with watch:
            value = loss(watch.parameters)
        check(value)
        return watch, [] if watch.again else watch.pull_back(value)

    while True:
        watch, pulled = _C.run_reverse(body)
        if not watch.again:
            return watch.of_sample(pulled), watch.layers
        explicit.update(watch.again)
