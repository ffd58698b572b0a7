"""Methods of tensors that look at storage or dispatch keys, which the engine's wrappers lack."""

import functools

import torch

from functorch_ext import _C


def install() -> None:
    """Teaches ``repr(x)`` and ``x.new_tensor(...)`` about the engine's wrappers."""
    _install_repr()
    _install_new_tensor()


def _install_new_tensor() -> None:
    plain = torch.Tensor.new_tensor

    @functools.wraps(plain)
    def new_tensor(self, data, *, dtype=None, device=None, requires_grad=False, **options):
        if _C.describe(self) is None:
            return plain(
                self, data, dtype=dtype, device=device, requires_grad=requires_grad, **options
            )
        return torch.tensor(
            data,
            dtype=dtype or self.dtype,
            device=device or self.device,
            requires_grad=requires_grad,
        )

    torch.Tensor.new_tensor = new_tensor


def _install_repr() -> None:
    plain = torch._tensor_str._str

    @functools.wraps(plain)
    def with_wrappers(self, *, tensor_contents=None):
        description = _C.describe(self)
        if description is None:
            return plain(self, tensor_contents=tensor_contents)
        value, kind, depth, bdim = description
        where = "" if bdim is None else f", bdim={bdim}"
        inner = with_wrappers(value).replace("\n", "\n    ")
        return f"{kind}Tensor(level={depth}{where}, value=\n    {inner}\n)"

    torch._tensor_str._str = with_wrappers
