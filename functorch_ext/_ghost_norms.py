"""Norms of the gradients of one sample, without the gradients.

The gradient of a layer's weight is a product of what the layer got and the cotangent of what it
returned. Its norm follows from these two, so the backward pass needs to compute cotangents of
activations alone, none of weights. ``GhostNorms`` watches the functions that get parameters.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from functorch_ext import _C
from functorch_ext._pytree import leaves_of

# A function's squared norms by the parameters it got, from its bound arguments and the cotangent of
# its output. ``None`` says that there is no formula for such arguments.
_Norms = dict[str, Callable[[Tensor], Tensor]]


def _squares(tensor: Tensor) -> Tensor:
    return (tensor * tensor).sum()


def _product_squares(left: Tensor, right: Tensor) -> Tensor:
    """The squared norm of ``left.T @ right``, of matrices with a row for each position."""
    positions = left.shape[0]
    if positions == 1:
        return _squares(left) * _squares(right)
    if 2 * positions * positions <= left.shape[1] * right.shape[1]:
        return ((left @ left.T) * (right @ right.T)).sum()
    return _squares(left.T @ right)


def _rows(tensor: Tensor) -> Tensor:
    """As a matrix with a row for each position."""
    # Not -1: it can't be inferred where there are no samples.
    return tensor.reshape(math.prod(tensor.shape[:-1]), tensor.shape[-1])


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> _Norms:
    return {
        "weight": lambda g: _product_squares(_rows(input), _rows(g)),
        "bias": lambda g: _squares(_rows(g).sum(0)),
    }


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> _Norms | None:
    if isinstance(padding, str) or input.dim() != 4:
        return None

    def weight_squares(g: Tensor) -> Tensor:
        patches = F.unfold(input, weight.shape[2:], dilation, padding, stride)
        left = _positions_by_group(patches, groups)
        right = _positions_by_group(g.flatten(2), groups)
        parts = [_product_squares(left[i], right[i]) for i in range(groups)]
        return torch.stack(parts).sum()

    return {"weight": weight_squares, "bias": lambda g: _squares(g.sum((0, 2, 3)))}


def _positions_by_group(tensor: Tensor, groups: int) -> Tensor:
    """(samples, channels, positions) as (groups, samples * positions, channels of a group)."""
    samples, channels, positions = tensor.shape
    split = tensor.reshape(samples, groups, channels // groups, positions)
    return split.permute(1, 0, 3, 2).reshape(groups, samples * positions, channels // groups)


def _conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> _Norms | None:
    if isinstance(padding, str) or input.dim() != 3:
        return None
    along = lambda value: value if isinstance(value, int) else value[0]
    flat = _conv2d(
        input.unsqueeze(2),
        weight.unsqueeze(2),
        bias,
        (1, along(stride)),
        (0, along(padding)),
        (1, along(dilation)),
        groups,
    )
    assert flat is not None
    return {
        "weight": lambda g: flat["weight"](g.unsqueeze(2)),
        "bias": lambda g: flat["bias"](g.unsqueeze(2)),
    }


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> _Norms | None:
    if max_norm is not None or scale_grad_by_freq:
        return None

    def squares(g: Tensor) -> Tensor:
        tokens, rows = input.flatten(), _rows(g)
        same = tokens[:, None] == tokens[None, :]
        if padding_idx is not None:
            same = same & (tokens != padding_idx % weight.shape[0])
        return ((rows @ rows.T) * same).sum()

    return {"weight": squares}


def _scale_and_shift(
    normalized: Callable[[], Tensor], reduce: Callable[[Tensor], Tensor]
) -> _Norms:
    return {
        "weight": lambda g: _squares(reduce(g * normalized())),
        "bias": lambda g: _squares(reduce(g)),
    }


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> _Norms:
    shape = tuple(normalized_shape)
    return _scale_and_shift(
        lambda: F.layer_norm(input, shape, None, None, eps),
        lambda g: g.reshape(math.prod(g.shape[: -len(shape)]), *shape).sum(0),
    )


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> _Norms:
    return _scale_and_shift(
        lambda: F.group_norm(input, num_groups, None, None, eps),
        lambda g: g.flatten(2).sum((0, 2)) if g.dim() > 2 else g.sum(0),
    )


_FORMULAS: dict[Any, Callable[..., _Norms | None]] = {
    F.linear: _linear,
    F.conv1d: _conv1d,
    F.conv2d: _conv2d,
    F.embedding: _embedding,
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
}


class GhostNorms(TorchFunctionMode):
    """Watches the evaluation of a sample's loss, which is to be differentiated in the frame.

    To the output of each function that it has a formula for it adds zeros, which are differentiated
    by: their cotangents are the output's.

    Attributes:
        others: the names of parameters of which the norm has no formula: they are used more than
            once, or by a function that isn't known here.
    """

    def __init__(self, frame: _C.ReverseFrame, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self._frame = frame
        self._names = {id(tensor): name for name, tensor in parameters.items()}
        # By parameter: the place of the output among the cotangents, and the formula.
        self._norms: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {}
        self._inputs: list[tuple[Any, Tensor, int]] = []
        self.others: set[str] = set()
        # So that the frame differentiates, even if no function has a formula.
        frame.differentiable([torch.zeros(())])
        self._count = 1

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        used = [self._names[id(x)] for x in leaves_of((args, kwargs)) if id(x) in self._names]
        if not used or not any(isinstance(leaf, Tensor) for leaf in leaves_of(result)):
            return result
        self.others.update(name for name in used if name in self._norms or used.count(name) > 1)
        norms = self._norms_of(func, args, kwargs)
        known = {self._names[key]: norm for key, norm in norms.items() if key in self._names}
        self.others.update(name for name in used if name not in known)
        if not known:
            return result
        for name, norm in known.items():
            self._norms[name] = (self._count, norm)
        self._count += 1
        zeros = result.new_zeros(()).expand(result.shape)
        return result + self._frame.differentiable([zeros])[0]

    def _norms_of(self, func: Any, args: Any, kwargs: Any) -> dict[int, Callable[[Tensor], Tensor]]:
        """Formulas of the function by the identity of the parameter."""
        formula = _FORMULAS.get(func)
        if formula is None:
            return {}
        given = inspect.signature(formula).bind(*args, **kwargs).arguments
        source = dict(given)
        self._inputs.append((func, source["input"], source["input"]._version))
        if source["input"].is_floating_point():
            # The input's value: how it depends on earlier zeros doesn't matter to the norm.
            source["input"] = self._frame.release(source["input"])
        norms = formula(**source) or {}
        return {id(given[name]): norm for name, norm in norms.items() if name in given}

    def squared_norms(self, cotangents: list[Tensor]) -> Tensor:
        """The sum over all parameters but ``others``, from what the frame has pulled back."""
        for func, given, version in self._inputs:
            if given._version != version:
                raise RuntimeError(
                    f"functorch_ext.per_sample_grad_norms: the input of {func.__name__} was "
                    "modified in place after the call, and the gradient of its weight needs it. "
                    "Modify a clone."
                )
        parts = [
            norm(cotangents[index])
            for name, (index, norm) in self._norms.items()
            if name not in self.others
        ]
        return torch.stack(parts).sum() if parts else torch.zeros(())


def squared_norm(
    loss: Callable[[], Tensor], parameters: dict[str, Tensor], check: Callable[[Any], None]
) -> tuple[Tensor, set[str]]:
    """The squared norm of the loss' gradient by the parameters, and the names of those left out."""

    def body(frame: _C.ReverseFrame) -> tuple[GhostNorms, list[Tensor]]:
        watch = GhostNorms(frame, parameters)
        with watch:
            value = loss()
        check(value)
        return watch, [*map(frame.strip, frame.pull_back([value], [None], False))]

    watch, cotangents = _C.run_reverse(body)
    return watch.squared_norms(cotangents), watch.others
