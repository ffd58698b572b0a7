"""Tensors made inside a transform: ``out = torch.zeros(3); out[0] = x`` works for a batched ``x``.

Such a tensor belongs to the transform. It becomes batched, and its views with it, at the first
write of a value that differs between samples. So does a clone of a tensor that all samples share,
if that doesn't require grad.

And a list of numbers may hold tensors of a transform: ``torch.tensor([x[0], x[1]])`` stacks them.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad
from torch.utils import dlpack

from functorch_ext import _C, _patches

MAKERS = """
    empty empty_like empty_permuted empty_strided zeros zeros_like ones ones_like full full_like
    scalar_tensor eye arange range tril_indices triu_indices
    bartlett_window blackman_window hamming_window hann_window kaiser_window
    rand rand_like randn randn_like randint randint_like randperm
""".split()
# What these compute of shared tensors is often made to be written to.
COMPUTES = (
    (torch, "stack cat concat concatenate hstack vstack dstack column_stack normal"),
    (torch.Tensor, "to float double half bfloat16 int long bool repeat"),
    (torch._C._nn, "one_hot"),
)
METHODS = "new_empty new_empty_strided new_full new_ones new_zeros".split()
# These give memory to those who expect to see what is written to it later.
HANDS_OUT = (
    (torch.Tensor, "numpy"),
    (torch.Tensor, "untyped_storage"),
    (dlpack, "to_dlpack"),
    (torch._C, "_to_dlpack_versioned"),
)

_DTYPES = """
    bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128
""".split()
# What stands for a number that isn't known. Made here: in a transform it would belong to that.
_STAND_INS = {
    dtype: torch.tensor(1j if dtype.is_complex else 1, dtype=dtype)
    for dtype in (getattr(torch, name) for name in _DTYPES)
}


_WHY = {
    "MAKES": "a tensor made inside a transform is the transform's own",
    "MAKES_BETWEEN": "the derivative by bounds that are tensors isn't lost",
    "COPIES": "a copy made inside a transform is the transform's own",
    "COMPUTES": "a new tensor made inside a transform is the transform's own",
    "HANDS_OUT": "memory that is handed out stays valid and is written to",
    "HANDS_POINTER": "memory that is handed out stays valid",
    "READS": "a tensor that stands for samples has no memory, and the error says so",
}


def install() -> None:
    """Tells the engine of PyTorch's functions that make tensors, or hand out their memory."""
    for name in MAKERS:
        _watch(torch, name, "MAKES")
    for name, role in (("tensor", "MAKES"), ("as_tensor", "COMPUTES"), ("asarray", "COMPUTES")):
        _watch(torch, name, role, functools.partial(_of_elements, getattr(torch, name)))
    for name in ("linspace", "logspace"):
        _watch(torch, name, "MAKES_BETWEEN", functools.partial(_between, getattr(torch, name)))
    for name in METHODS:
        _watch(torch.Tensor, name, "MAKES")
    for owner in (torch, torch.Tensor):
        _watch(owner, "clone", "COPIES")
    for owner, names in COMPUTES:
        for name in names.split():
            _watch(owner, name, "COMPUTES")
    for stand_in in (FakeTensor, FunctionalTensor):
        _C.add_type_of_fakes(stand_in)
    for owner, name in HANDS_OUT:
        _watch(owner, name, "HANDS_OUT")
    _watch(torch.Tensor, "data_ptr", "HANDS_POINTER")
    _watch(torch.Tensor, "tolist", "READS")


def _watch(owner: Any, name: str, role: str, of_elements: Any = None) -> None:
    index = _C.watch_builtin(getattr(owner, name), getattr(_C.BuiltinRole, role), of_elements)
    on, off = (functools.partial(_C.set_watched, index, value) for value in (True, False))
    target = f"torch.Tensor.{name}" if owner is torch.Tensor else f"{owner.__name__}.{name}"
    _patches.add(_patches.Patch(target, _WHY[role], _patches.IN_C, on, off))


def _of_elements(function: Callable[..., Tensor], data: Any, *args: Any, **options: Any) -> Any:
    """What ``function`` makes of nested lists, some of whose numbers are tensors of a transform.

    As from PyTorch's function, no derivative flows through the result.
    """
    elements: list[Any] = []

    def stand_in(node: Any) -> Any:
        if isinstance(node, (list, tuple)):
            return [stand_in(part) for part in node]
        elements.append(node)
        if not isinstance(node, Tensor):
            return node
        if node.numel() != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return _STAND_INS[node.dtype]

    like_data = stand_in(data) if isinstance(data, (list, tuple)) else None
    if all(_C.describe(x) is None for x in elements if isinstance(x, Tensor)):
        return NotImplemented
    like = function(like_data, *args, **options)  # its shape and dtype, or PyTorch's own error
    tensors = [x.detach() if isinstance(x, Tensor) else torch.tensor(x) for x in elements]
    flat = torch.cat([x.reshape(-1).to(like.device, like.dtype) for x in tensors])
    result = flat.reshape(like.shape)
    return result.requires_grad_() if like.requires_grad else result


def _between(
    function: Callable[..., Tensor],
    start: Any = None,
    end: Any = None,
    steps: Any = None,
    *base: float,
    **options: Any,
) -> Any:
    """Evenly spaced numbers between tensors that are differentiated.

    PyTorch takes the bounds for constants: the derivative by them would be zero without a word.
    """
    bounds = [bound for bound in (start, end) if isinstance(bound, Tensor)]
    recorded = torch.is_grad_enabled() and any(bound.requires_grad for bound in bounds)
    if not (recorded or _C.tangent_flows(tuple(bounds))) or steps is None or "out" in options:
        return NotImplemented
    # Shape and dtype, or PyTorch's own error.
    constants = [x.detach() if isinstance(x, Tensor) else x for x in (start, end)]
    with torch.no_grad():
        like = function(*map(_primal, constants), steps, *base, **options)
    if not (like.is_floating_point() or like.is_complex()):
        return like
    weights = torch.linspace(0, 1, steps, dtype=like.real.dtype, device=like.device)
    numbers = start * (1 - weights) + end * weights
    if function.__name__ == "logspace":
        numbers = torch.pow(base[0] if base else options.get("base", 10.0), numbers)
    return numbers.to(like.dtype)


def _primal(bound: Any) -> Any:
    return forward_ad.unpack_dual(bound).primal if isinstance(bound, Tensor) else bound
