"""``show``: the planes of a tensor."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._describing import kind_of
from functorch_ext._inspect.stack import name_of_level


@dataclasses.dataclass(frozen=True)
class Plane:
    """One tensor of those that a tensor of a transform is made of.

    Attributes:
        level: The transform that it belongs to, such as ``vmap(level 1, 8 samples)``; ``plain`` for
            the last one.
        shape: Its shape: on a plane of samples, that of one.
        bdim: The dimension of the tensor below that runs over the samples; ``None`` if this one is
            the same for all of them, or no stack of samples.
        dtype: Its dtype.
        device: Its device.
        notes: What else there is to know of it: ``requires grad``, ``has a tangent``, ``escaped``.
    """

    level: str
    shape: tuple[int, ...]
    bdim: int | None
    dtype: torch.dtype
    device: torch.device
    notes: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.level}: shape {self.shape}"]
        if self.bdim is not None:
            parts.append(f"samples in dim {self.bdim} below")
        return ", ".join(
            [*parts, str(self.dtype).removeprefix("torch."), str(self.device), *self.notes]
        )


class Planes(tuple[Plane, ...]):
    """The planes of a tensor, from its own down to the plain tensor; prints as a tree."""

    def __str__(self) -> str:
        lines = [str(self[0])]
        lines += [f"{'   ' * depth}└─ {plane}" for depth, plane in enumerate(self[1:])]
        return "\n".join(lines)

    __repr__ = __str__

    def to_dict(self) -> list[dict[str, Any]]:
        """The same as dicts of strings and numbers."""
        texts = ("dtype", "device")
        rows = [dataclasses.asdict(plane) for plane in self]
        return [row | {name: str(row[name]) for name in texts} for row in rows]


def show(tensor: Tensor) -> Planes:
    """What a tensor stands for, plane by plane: for ``print`` inside of transforms.

    Args:
        tensor: Any tensor, of a transform or plain.

    Returns:
        The :class:`Planes` from the tensor's own down to a plain tensor. They print as a tree, and
        each has its ``level``, ``shape``, ``bdim``, ``dtype``, ``device`` and ``notes``. They hold
        no tensor.

    Raises:
        TypeError: it isn't a tensor.

    Example::

        >>> def f(x, y):
        ...     print(functorch_ext.debug.show(x * y))
        ...     return x * y
        >>> outer = vmap(vmap(f, in_dims=(0, None)), in_dims=(1, 0))
        >>> result = outer(torch.ones(3, 8), torch.ones(8, 2))
        vmap(level 2, 3 samples): shape (2,), samples in dim 0 below, float32, cpu
        └─ vmap(level 1, 8 samples): shape (3, 2), samples in dim 0 below, float32, cpu
           └─ plain: shape (8, 3, 2), float32, cpu
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"functorch_ext.debug.show: expected a tensor, but got {kind_of(tensor)}.")
    planes = []
    below: Tensor | None = tensor
    while below is not None:
        plane, below = _plane_of(below)
        planes.append(plane)
    return Planes(planes)


def _plane_of(tensor: Tensor) -> tuple[Plane, Tensor | None]:
    found = _C.look_at(tensor)
    notes = []
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        notes.append(f"a {type(tensor).__name__}")
    if tensor.layout is not torch.strided:
        notes.append(str(tensor.layout).removeprefix("torch."))
    if _C.requires_grad_here(tensor):
        node = tensor.grad_fn
        notes.append("requires grad" if node is None else f"recorded by {node.name()}")
    if _C.tangent_of(tensor) is not None:
        notes.append("has a tangent")
    value, level, bdim = None, "plain", None
    if found is not None:
        value, described, _, bdim, running, own = found
        level = name_of_level(described)
        if described[0] in ("vmap", "basis") and bdim is None:
            notes.append("the same for all samples")
        if own:
            notes.append("made inside")
        if not running:
            notes.append("escaped: its transform has returned")
    plane = Plane(level, tuple(tensor.shape), bdim, tensor.dtype, tensor.device, tuple(notes))
    return plane, value
