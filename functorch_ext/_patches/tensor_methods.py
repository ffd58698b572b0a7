"""Methods of tensors that look at storage or dispatch keys, which the engine's wrappers lack."""

import copy
import functools

import torch

from functorch_ext import _C, _patches


def install() -> None:
    """Teaches indexing, ``repr``, ``new``, hooks, ``copy`` and ``pickle`` about wrappers."""
    _install_indexing()
    _install_repr()
    _install_requires_grad()
    _install_register_hook()
    _install_new_tensor()
    _install_new()
    _install_copy()
    _install_deepcopy()
    _install_pickle()


def _replace(name, method, why):
    _patches.replace(torch.Tensor, name, method, why)


def _install_indexing() -> None:
    for name, method in _C.indexing_methods(torch.Tensor).items():
        why = "an index without dimensions may differ between samples"
        _patches.replace(torch.Tensor, name, method, why, "one look at the type of each index")


def _install_new_tensor() -> None:
    plain = torch.Tensor.new_tensor

    @functools.wraps(plain)
    def new_tensor(self, data, *, dtype=None, device=None, requires_grad=False, **options):
        if _C.describe(self) is None:
            try:
                return _C.own_tensor(
                    plain(
                        self,
                        data,
                        dtype=dtype,
                        device=device,
                        requires_grad=requires_grad,
                        **options,
                    )
                )
            except RuntimeError:  # the elements of a list may be wrappers: see makers.py
                if not isinstance(data, (list, tuple)):
                    raise
        return torch.tensor(
            data,
            dtype=dtype or self.dtype,
            device=device or self.device,
            requires_grad=requires_grad,
        )

    _replace("new_tensor", new_tensor, "lists may hold tensors of a transform")


def _install_new() -> None:
    plain = torch.Tensor.new

    @functools.wraps(plain)
    def new(self, *args, **options):
        if len(args) == 1 and isinstance(args[0], torch.Tensor):
            return torch.ops.aten.alias(args[0])
        return _C.own_tensor(plain(_C.below_all_levels(self), *args, **options))

    _replace("new", new, "what it makes inside a transform is the transform's")


def _copied(tensor, data):
    """``data`` as a leaf of the class that ``tensor`` is of."""
    if isinstance(tensor, torch.nn.Parameter):
        return type(tensor)(data, _C.requires_grad_here(tensor))
    return data.requires_grad_(_C.requires_grad_here(tensor))


def _install_copy() -> None:
    # Without this, copy.copy asks __reduce_ex__ for the tensor's storage.
    def __copy__(self):  # noqa: N807
        if _C.describe(self) is None:
            reconstruct = copy._reconstruct  # type: ignore[attr-defined]
            return reconstruct(self, None, *self.__reduce_ex__(4))
        result = _copied(self, self.detach())
        result.__dict__.update(self.__dict__)
        return result

    why = "a tensor of a transform has no storage to copy"
    _patches.replace(torch.Tensor, "__copy__", __copy__, why, always="one call of Python")


def _install_deepcopy() -> None:
    plain = torch.Tensor.__deepcopy__

    @functools.wraps(plain)
    def __deepcopy__(self, memo):  # noqa: N807
        # Copied by itself inside a transform, a shared tensor becomes one of the transform's own.
        alone = not memo and type(self) is torch.Tensor and self.layout is torch.strided
        becomes_own = alone and _C.running_level() is not None
        if (_C.describe(self) is None and not becomes_own) or id(self) in memo or not self.is_leaf:
            return plain(self, memo)
        with torch.no_grad():
            memo[id(self)] = result = _copied(self, self.detach().clone())
        if self.grad is not None:
            result.grad = copy.deepcopy(self.grad, memo)
        result.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return result

    _replace("__deepcopy__", __deepcopy__, "a tensor of a transform has no storage to copy")


def _install_pickle() -> None:
    plain = torch.Tensor._reduce_ex_internal

    @functools.wraps(plain)
    def _reduce_ex_internal(self, protocol):
        if _C.describe(self) is None:
            return plain(self, protocol)
        if not _C.has_storage(self):
            raise RuntimeError(
                "functorch_ext: a tensor inside a transform can't be pickled or saved: it may "
                "stand for many samples, or have a derivative. Return it from the function, and "
                "save what the transform returns."
            )
        value = _C.below_all_levels(self).detach()
        return plain(value.requires_grad_(self.requires_grad), protocol)

    _replace(
        "_reduce_ex_internal", _reduce_ex_internal, "a tensor of a transform has no storage to save"
    )


def _install_requires_grad() -> None:
    descriptor = vars(torch._C.TensorBase)["requires_grad"]
    on, off = (
        functools.partial(_C.replace_requires_grad, descriptor, value) for value in (True, False)
    )
    why = "a tensor inside vmap requires grad if what it stands for does, as a sample in a loop"
    _patches.add(_patches.Patch("torch.Tensor.requires_grad", why, "one look at the keys", on, off))


def _install_register_hook() -> None:
    plain = torch.Tensor.register_hook

    @functools.wraps(plain)
    def register_hook(self, hook):
        level = None if _C.requires_grad_here(self) else _C.level_of((self,))
        if level is None or not level.has_samples:
            return plain(self, hook)
        value, dim = level.unwrap(self)
        if dim is None:  # its gradient is summed over samples before a hook could see it
            return plain(self, hook)
        batch_size, randomness = level.batch_size, level.randomness

        # Who differentiates is outside of the vmap: the hook takes samples of a cotangent there.
        def hook_of_batch(cotangent):
            def body(level):
                result = hook(level.wrap(cotangent, dim))
                return None if result is None else level.stacked(result, dim)

            return _C.run_batch(body, batch_size, randomness, [cotangent])

        return register_hook(value, hook_of_batch)

    _replace("register_hook", register_hook, "a hook inside vmap gets the samples of a cotangent")


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

    why = "a tensor of a transform prints as what it stands for"
    _patches.replace(torch._tensor_str, "_str", with_wrappers, why)
