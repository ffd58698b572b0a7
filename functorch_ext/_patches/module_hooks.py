"""Full backward hooks of modules, where the tensors of a ``vmap`` are differentiated from outside.

``grad(vmap(module))`` differentiates on a plane below that of the module's inputs and outputs. So
there a hook is put on their values, and gets samples of what flows through them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.hooks import BackwardHook

from functorch_ext import _C, _patches

_Cotangents = Sequence[Tensor | None]


def install() -> None:
    """Teaches full backward hooks of modules about the planes below a vmap."""
    plain = BackwardHook._apply_on_tensors

    def apply_on_tensors(self: BackwardHook, fn: Callable[[Any], None], args: Any) -> Any:
        level = _C.running_level()
        tensors = () if level is None else tuple(arg for arg in args if isinstance(arg, Tensor))
        if (
            level is None
            or not level.has_samples
            or level.differentiates(tensors)
            or not level.is_differentiated_below(tensors)
        ):
            return plain(self, fn, args)
        pairs = [_batched(level, tensor) for tensor in tensors]
        dims = [dim for _, dim in pairs]
        values, found = _C.run_below(
            level,
            apply_on_tensors,
            self,
            lambda node: fn(_NodeOfBatch(node, self, level, dims)),
            tuple(value for value, _ in pairs),
        )
        if found is None:
            return args, None
        wrapped = iter([level.wrap(value, dim) for value, dim in zip(values, dims, strict=True)])
        seen = [next(wrapped) if isinstance(arg, Tensor) else arg for arg in args]
        indices = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)]
        return (tuple(seen) if type(args) is tuple else type(args)(*seen)), indices

    _patches.replace(
        BackwardHook,
        "_apply_on_tensors",
        apply_on_tensors,
        "full backward hooks of modules work where the derivative flows below a vmap",
    )


def _batched(level: _C.Level, tensor: Tensor) -> tuple[Tensor, int]:
    """The value of a tensor, with samples in any case: a cotangent differs between them."""
    value, dim = level.unwrap(tensor)
    return (value.expand(level.batch_size, *value.shape), 0) if dim is None else (value, dim)


class _NodeOfBatch:
    """A node of autograd below a vmap, whose hooks get the samples of its cotangents."""

    def __init__(self, node: Any, owner: BackwardHook, level: _C.Level, dims: list[int]) -> None:
        self.node, self.owner, self.dims = node, owner, dims
        self.batch_size, self.randomness = level.batch_size, level.randomness

    def register_hook(self, hook: Callable[[Any, Any], Any]) -> Any:
        # The node keeps its hooks: they must not keep the node.
        owner, dims, batch_size, randomness = (
            self.owner,
            self.dims,
            self.batch_size,
            self.randomness,
        )

        def of_batch(by_inputs: _Cotangents, by_outputs: _Cotangents) -> Any:
            # The hook of the outputs leaves their cotangents to that of the inputs: as values, for
            # each has a frame of its own.
            found: Any = owner.grad_outputs
            kept = found if isinstance(found, _Values) else _Values()
            above = [each for each in (*by_inputs, *by_outputs, *kept) if each is not None]

            def body(level: _C.Level) -> Any:
                if kept:
                    samples = _wrapped(level, kept, [0] * len(kept))
                    owner.grad_outputs = _Values.of(samples, kept.batches - 1)  # type: ignore[assignment]
                result = hook(_wrapped(level, by_inputs, dims), _wrapped(level, by_outputs, dims))
                if owner.grad_outputs is not None:
                    found = owner.grad_outputs
                    values = _stacked(level, found, [0] * len(found))
                    owner.grad_outputs = _Values.of(values, getattr(found, "batches", 0) + 1)
                return None if result is None else _stacked(level, result, dims)

            try:
                return _C.run_batch(body, batch_size, randomness, above)
            except BaseException:
                owner.grad_outputs = None  # they may keep the graph, and its hooks the owner
                raise

        return self.node.register_hook(of_batch)


class _Values(tuple):
    """The values of samples, with the batches of so many vmaps in front."""

    batches = 0

    @staticmethod
    def of(values: _Cotangents, batches: int) -> _Cotangents:
        if not batches:
            return tuple(values)
        result = _Values(values)
        result.batches = batches
        return result


def _wrapped(level: _C.Level, values: _Cotangents, dims: list[int]) -> _Cotangents:
    return tuple(
        None if value is None else level.wrap(value, dim)
        for value, dim in zip(values, dims, strict=True)
    )


def _stacked(level: _C.Level, samples: _Cotangents, dims: list[int]) -> _Cotangents:
    return tuple(
        None if sample is None else level.stacked(sample, dim)
        for sample, dim in zip(samples, dims, strict=True)
    )
