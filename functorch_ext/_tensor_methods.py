"""Methods of tensors that look at storage or dispatch keys, which the engine's wrappers lack."""

import functools

import torch

from functorch_ext import _C


def install() -> None:
    """Teaches ``repr(x)``, ``x.new_tensor(...)`` and ``x.register_hook(...)`` about wrappers."""
    _install_repr()
    _install_register_hook()
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


def _install_register_hook() -> None:
    plain = torch.Tensor.register_hook

    @functools.wraps(plain)
    def register_hook(self, hook):
        level = None if self.requires_grad else _C.level_of((self,))
        if level is None or not level.is_batch:
            return plain(self, hook)
        value, dim = level.unwrap(self)
        if dim is None:  # its gradient is summed over samples before a hook could see it
            return plain(self, hook)
        batch_size, randomness = level.batch_size, level.randomness

        # Who differentiates is outside of the vmap: the hook takes samples of a cotangent there.
        def hook_of_batch(cotangent):
            frame = _C.BatchFrame(batch_size, randomness, True, [cotangent])
            try:
                result = hook(frame.wrap(cotangent, dim))
                return None if result is None else frame.unwrap(result, dim)
            finally:
                frame.exit()

        return register_hook(value, hook_of_batch)

    torch.Tensor.register_hook = register_hook


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
