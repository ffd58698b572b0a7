"""Computing a batch a few samples at a time."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._pytree import Tree, broadcast_prefix, flatten, leaves_of, unflatten


def call_in_chunks(
    run: Callable[[Any], Tree], chunks: Iterable[Any], out_dims: Tree, same_draws: bool
) -> Tree:
    """Calls ``run`` on each chunk and joins the outputs along ``out_dims``.

    An output with the out_dim ``None`` is the same for all chunks; the last one is returned. With
    ``same_draws`` all chunks draw the same random numbers.
    """
    results = _C.map_with_same_draws(run, chunks) if same_draws else [run(each) for each in chunks]
    parts = [leaves_of(outputs) for outputs in results]
    dims = _dims_of(out_dims, results[-1], len(parts[0]))
    return unflatten(
        flatten(results[-1])[1],
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
