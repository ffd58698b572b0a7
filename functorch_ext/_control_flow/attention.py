"""``flex_attention``."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functorch_ext.vmap import vmap


def flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Callable[..., Tensor],
    block_mask: tuple[Any, ...],
    scale: float,
    kernel_options: dict[str, Any],
    score_mod_other_buffers: tuple[Any, ...] = (),
    mask_mod_other_buffers: tuple[Any, ...] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention from its parts: the result, and the logarithms (to base 2) that the kernel returns.

    Scores are changed and masked by functions of the program's for one score. Blocks only tell a
    fused kernel what it may skip: the mask is all.
    """
    device = query.device
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
        query, key, value = (
            x.to(dtype) if x.is_floating_point() else x for x in (query, key, value)
        )
    with torch.autocast(device.type, enabled=False):
        return _attention(
            query,
            *_as_many_as(query, key, value),
            _for_all(score_mod, (0,), score_mod_other_buffers),
            _for_all(block_mask[-1], (), mask_mod_other_buffers),
            scale,
        )


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    changed: Callable[..., Tensor],
    mask: Callable[..., Tensor],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    working = torch.float64 if query.dtype == torch.float64 else torch.float32
    scores = (query.to(working) @ key.to(working).transpose(-2, -1)) * scale
    places = [torch.arange(size, device=query.device) for size in scores.shape]
    lowest = torch.full((), -math.inf, dtype=working, device=query.device)
    scores = torch.where(mask(*places), changed(scores, *places).to(working), lowest)
    nothing = (scores == -math.inf).all(-1)
    # A row without any place to attend to is zeros. Of such a row softmax has no derivative.
    safe = torch.where(nothing.unsqueeze(-1), 0.0, scores)
    weights = torch.where(nothing.unsqueeze(-1), 0.0, safe.softmax(-1))
    log_sum = torch.where(nothing, -math.inf, safe.logsumexp(-1))
    largest = torch.where(nothing, -math.inf, safe.detach().amax(-1))
    result = weights.to(query.dtype) @ value.to(query.dtype)
    return result, log_sum / math.log(2), largest / math.log(2)


def _as_many_as(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values for each batch and head of the query."""
    groups = query.size(1) // key.size(1)
    batch, key_batch = query.size(0), key.size(0)
    if batch != key_batch and not (batch > 1 and key_batch == 1):
        raise RuntimeError(f"Bq and Bkv must broadcast. Got Bq={batch} and Bkv={key_batch}")
    key, value = (x.repeat_interleave(groups, 1) if groups > 1 else x for x in (key, value))
    return key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1)


def _for_all(
    function: Callable[..., Tensor], scores: tuple[int, ...], buffers: tuple[Any, ...]
) -> Callable[..., Tensor]:
    """A function of one batch, head, query and key as one of all of them."""
    shared = (None,) * len(buffers)
    for place in (3, 2, 1, 0):
        mapped = [0 if other == place else None for other in range(4)]
        function = vmap(function, (*scores, *mapped, *shared))
    return lambda *places: function(*places, *buffers)
