"""Tensors made inside ``vmap``: ``out = torch.zeros(3); out[0] = x`` works for a batched ``x``.

Such a tensor belongs to the ``vmap``. It becomes batched, and its views with it, at the first write
of a value that differs between samples. So does a clone of a tensor that all samples share, if that
doesn't require grad.
"""

import torch

from functorch_ext import _C

FUNCTIONS = """
    empty empty_like empty_strided zeros zeros_like ones ones_like full full_like tensor
    scalar_tensor eye arange linspace logspace tril_indices triu_indices
    rand rand_like randn randn_like randint randint_like randperm
""".split()
METHODS = "new_empty new_empty_strided new_full new_ones new_zeros".split()


def install() -> None:
    """Tells the engine of PyTorch's functions that make new tensors."""
    for name in FUNCTIONS:
        _C.own_results_of(getattr(torch, name), is_copy=False)
    for name in METHODS:
        _C.own_results_of(getattr(torch.Tensor, name), is_copy=False)
    for owner in (torch, torch.Tensor):
        _C.own_results_of(owner.clone, is_copy=True)
