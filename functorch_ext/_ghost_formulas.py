"""Functions of a layer, from whose input and output's cotangent the gradient's norm follows.

A formula is made for arguments for which it takes less than the gradient itself. With T positions
at which a weight of p times d elements is used, the gradient has p * d elements; what it is made of
has T * (p + d), and the products of all pairs of positions take that many multiplications T times.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

# Of an input and the output's cotangent.
_Of = Callable[[Tensor, Tensor], Tensor]


class Formula(NamedTuple):
    """What follows from the input and the cotangent, for each parameter of the function.

    Attributes:
        input: what the function got.
        parameters: which parameters it got, by their names in what follows.
        squares: the squared norm of the gradient.
        gradient: the gradient.
    """

    input: Tensor
    parameters: dict[str, Tensor]
    squares: dict[str, _Of]
    gradient: dict[str, _Of]


def accurate(tensor: Tensor) -> Tensor:
    """In single precision at least, for squares overflow half of it."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def squares(tensor: Tensor) -> Tensor:
    """The squared norm."""
    tensor = accurate(tensor)
    return (tensor * tensor).sum()


def _product_squares(left: Tensor, right: Tensor) -> Tensor:
    """The squared norm of ``left.T @ right``, of matrices with a row for each position."""
    if left.shape[0] == 1:
        return squares(left) * squares(right)
    return _sum_of_pairs((left @ left.T) * (right @ right.T))


def _sum_of_pairs(products: Tensor) -> Tensor:
    """Of products that cancel in part, so that rounding may leave less than nothing."""
    return products.sum().clamp(min=0)


# Gradients of fewer elements aren't worth the detour.
FEW_ELEMENTS = 2**13


def _takes_less(positions: int, rows: int, columns: int) -> bool:
    elements = rows * columns
    return FEW_ELEMENTS <= elements and positions * (rows + columns) <= elements


def _rows(tensor: Tensor) -> Tensor:
    """As a matrix with a row for each position."""
    # Not -1: it can't be inferred where there are no samples.
    return tensor.reshape(math.prod(tensor.shape[:-1]), tensor.shape[-1])


def _both(weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Formula | None:
    if weight.dim() != 2 or not _takes_less(math.prod(input.shape[:-1]), *weight.shape):
        return None
    return Formula(
        input,
        _both(weight, bias),
        {
            "weight": lambda x, g: _product_squares(_rows(x), _rows(g)),
            "bias": lambda x, g: squares(_rows(g).sum(0)),
        },
        {"weight": lambda x, g: _rows(g).T @ _rows(x), "bias": lambda x, g: _rows(g).sum(0)},
    )


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Formula | None:
    if isinstance(padding, str) or input.dim() != 4:
        return None
    options = [_pair(each) for each in (stride, padding, dilation)]
    positions = input.shape[0]
    for size, kernel, *each in zip(input.shape[2:], weight.shape[2:], *options, strict=True):
        step, around, apart = each
        positions *= (size + 2 * around - apart * (kernel - 1) - 1) // step + 1
    if not _takes_less(positions, weight.shape[0] // groups, math.prod(weight.shape[1:])):
        return None
    steps, around, apart = options

    def weight_squares(x: Tensor, g: Tensor) -> Tensor:
        patches = F.unfold(x, weight.shape[2:], apart, around, steps)
        left = _positions_by_group(patches, groups)
        right = _positions_by_group(g.flatten(2), groups)
        return torch.stack([_product_squares(left[i], right[i]) for i in range(groups)]).sum()

    def weight_gradient(x: Tensor, g: Tensor) -> Tensor:
        shape = tuple(weight.shape)
        return conv2d_weight(x, shape, g, steps, around, apart, groups)

    return Formula(
        input,
        _both(weight, bias),
        {"weight": weight_squares, "bias": lambda x, g: squares(g.sum((0, 2, 3)))},
        {"weight": weight_gradient, "bias": lambda x, g: g.sum((0, 2, 3))},
    )


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value) * (2 // len(value))


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
) -> Formula | None:
    if isinstance(padding, str) or input.dim() != 3:
        return None
    flat = _conv2d(
        input.unsqueeze(2),
        weight.unsqueeze(2),
        bias,
        (1, _pair(stride)[0]),
        (0, _pair(padding)[0]),
        (1, _pair(dilation)[0]),
        groups,
    )
    if flat is None:
        return None
    of_plane = lambda of: lambda x, g: of(x.unsqueeze(2), g.unsqueeze(2))
    squared = {name: of_plane(of) for name, of in flat.squares.items()}
    weights, bias_gradient = (of_plane(flat.gradient[key]) for key in ("weight", "bias"))
    return Formula(
        input,
        _both(weight, bias),
        squared,
        {"weight": lambda x, g: weights(x, g).squeeze(2), "bias": bias_gradient},
    )


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Formula | None:
    if max_norm is not None or scale_grad_by_freq:
        return None
    entries = weight.shape[0]
    if weight.numel() < FEW_ELEMENTS or input.numel() > entries:
        return None
    padding = -1 if padding_idx is None else padding_idx % entries

    def weight_squares(x: Tensor, g: Tensor) -> Tensor:
        tokens, rows = x.flatten(), _rows(g)
        same = (tokens[:, None] == tokens[None, :]) & (tokens != padding)
        return _sum_of_pairs((rows @ rows.T) * same)

    def weight_gradient(x: Tensor, g: Tensor) -> Tensor:
        return torch.ops.aten.embedding_dense_backward(g, x, entries, padding, False)

    return Formula(
        input, _both(weight, None), {"weight": weight_squares}, {"weight": weight_gradient}
    )


FORMULAS: dict[Any, Callable[..., Formula | None]] = {
    F.linear: _linear,
    F.conv1d: _conv1d,
    F.conv2d: _conv2d,
    F.embedding: _embedding,
}
