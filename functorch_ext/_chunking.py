"""Computing a batch a few samples at a time."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from functorch_ext._pytree import Tree, broadcast_prefix, flatten, unflatten


def call_in_chunks(run: Callable[[Any], Tree], chunks: Iterable[Any], out_dims: Tree) -> Tree:
    """Calls ``run`` on each chunk and joins the outputs along ``out_dims``.

    An output with the out_dim ``None`` is the same for all chunks; the last one is returned.
    """
    parts: list[list[Any]] = []
    outputs: Tree = None
    for chunk in chunks:
        outputs = run(chunk)
        leaves, structure = flatten(outputs)
        parts.append(leaves)
    dims = _dims_of(out_dims, outputs, len(parts[0]))
    return unflatten(
        structure,
        [_join(pieces, dim) for pieces, dim in zip(zip(*parts, strict=True), dims, strict=True)],
    )


def _dims_of(out_dims: Tree, outputs: Tree, leaves: int) -> list[int | None]:
    if isinstance(out_dims, int):
        return [out_dims] * leaves
    try:
        return broadcast_prefix(out_dims, outputs)
    except ValueError:
        return broadcast_prefix(out_dims[0], outputs)


def _join(pieces: tuple[Any, ...], dim: int | None) -> Any:
    if dim is None or not isinstance(pieces[0], Tensor):
        return pieces[-1]
    return torch.cat(pieces, dim)
