"""``DTensor``: tensors sharded over the processes of a mesh, which don't mix with plain ones.

What differentiation makes itself, cotangents of numbers and the basis of a Jacobian, is made as
DTensors. Where a tensor is replicated, the vectors of its basis are divided among the processes, so
that each computes, and keeps, its part of the Jacobian's columns or rows.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C, _patches
from functorch_ext._patches.after_import import when_imported


def install() -> None:
    """Teaches DTensor about transforms; once it is imported, which takes long."""
    when_imported("torch.distributed.tensor._api", _teach)


def _teach(module: ModuleType) -> None:
    from torch.distributed.tensor.placement_types import Replicate, Shard

    dtensor: Any = module.DTensor

    def seed(output: Tensor) -> Tensor | None:
        below = _C.below_all_levels(output)
        if not isinstance(below, dtensor):
            return None
        ones = torch.ones((), dtype=output.dtype, device=output.device)
        return dtensor.from_local(ones, below.device_mesh, run_check=False)

    def basis(tensors: Sequence[Tensor], start: int, count: int) -> list[Tensor] | None:
        below = [_C.below_all_levels(tensor) for tensor in tensors]
        meshes = [each.device_mesh for each in below if isinstance(each, dtensor)]
        if not meshes:
            return None
        mesh = meshes[0]
        divided = [_divides(tensors, below, count, mesh, axis) for axis in range(mesh.ndim)]
        own, first = count, start
        for axis, is_divided in enumerate(divided):
            if is_divided:
                own, offset = Shard.local_shard_size_and_offset(
                    own, mesh.size(axis), mesh.get_local_rank(axis)
                )
                first += offset
        plain = [torch.empty(x.shape, dtype=x.dtype, device=mesh.device_type) for x in tensors]
        vectors = _C.standard_basis(plain, first, own)
        placements = [Shard(0) if is_divided else Replicate() for is_divided in divided]
        return [_as_dtensor(part, count, mesh, placements) for part in vectors]

    def _divides(
        tensors: Sequence[Tensor], below: list[Any], count: int, mesh: Any, axis: int
    ) -> bool:
        """Are the vectors divided among the processes along an axis of the mesh?"""
        size = mesh.size(axis)
        return count == sum(tensor.numel() for tensor in tensors) and all(
            plain is tensor  # of a vmap's tensors the samples may be sharded already
            and isinstance(tensor, dtensor)
            and tensor.placements[axis].is_replicate()
            # DTensor can't split a dimension in two that isn't divided evenly.
            and tensor.dim() > 0
            and tensor.shape[0] % size == 0
            for tensor, plain in zip(tensors, below, strict=True)
        )

    def _as_dtensor(part: Tensor, count: int, mesh: Any, placements: list[Any]) -> Tensor:
        shape = torch.Size((count, *part.shape[1:]))
        stride = torch.empty(shape, device="meta").stride()
        return dtensor.from_local(
            part, mesh, placements, run_check=False, shape=shape, stride=stride
        )

    _C.set_subclass_makers(seed, basis)
    handlers = dtensor._op_dispatcher._custom_op_handlers
    compared = torch.ops.aten._has_same_storage_numel.default

    def have_same_storage(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        first, second = (x._local_tensor if isinstance(x, dtensor) else x for x in args)
        return compared(first, second)

    _patches.add(
        _patches.Patch(
            "torch.distributed.tensor.DTensor (how it compares storages)",
            "forward mode compares those of primal and tangent, and DTensor raises",
            "none",
            lambda: handlers.__setitem__(compared, have_same_storage),
            lambda: handlers.pop(compared, None),
        )
    )
