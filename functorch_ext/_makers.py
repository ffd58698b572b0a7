"""Tensors made inside a transform: ``out = torch.zeros(3); out[0] = x`` works for a batched ``x``.

Such a tensor belongs to the transform. It becomes batched, and its views with it, at the first
write of a value that differs between samples. So does a clone of a tensor that all samples share,
if that doesn't require grad.
"""

import torch
from torch.utils import dlpack

from functorch_ext import _C

MAKERS = """
    empty empty_like empty_permuted empty_strided zeros zeros_like ones ones_like full full_like
    tensor scalar_tensor eye arange range linspace logspace tril_indices triu_indices
    bartlett_window blackman_window hamming_window hann_window kaiser_window
    rand rand_like randn randn_like randint randint_like randperm
""".split()
METHODS = "new_empty new_empty_strided new_full new_ones new_zeros".split()
# These give memory to those who expect to see what is written to it later.
HANDS_OUT = (
    torch.Tensor.numpy,
    torch.Tensor.untyped_storage,
    dlpack.to_dlpack,
    torch._C._to_dlpack_versioned,
)


def install() -> None:
    """Tells the engine of PyTorch's functions that make tensors, or hand out their memory."""
    for name in MAKERS:
        _C.watch_builtin(getattr(torch, name), _C.BuiltinRole.MAKES)
    for name in METHODS:
        _C.watch_builtin(getattr(torch.Tensor, name), _C.BuiltinRole.MAKES)
    for owner in (torch, torch.Tensor):
        _C.watch_builtin(owner.clone, _C.BuiltinRole.COPIES)
    for function in HANDS_OUT:
        _C.watch_builtin(function, _C.BuiltinRole.HANDS_OUT)
    _C.watch_builtin(torch.Tensor.data_ptr, _C.BuiltinRole.HANDS_POINTER)
