"""Norms and clipped sums of the gradients of samples, by formulas of layers where they have one."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from functorch_ext import _C
from functorch_ext import _ghost_norms as ghost
from functorch_ext._chunk_sizes import Chunking
from functorch_ext._describing import kind_of
from functorch_ext._dynamo.entry import EAGER, call_transform
from functorch_ext._module_walk import Hooks, Walk, split_parameters, walk
from functorch_ext._pytree import leaves_of, map_tensors, name_of_leaf
from functorch_ext.nn import functional_call
from functorch_ext.reverse import check_number, grad
from functorch_ext.vmap import vmap

Loss = Callable[[Any, Any], Tensor]
Parameters = dict[str, Tensor]


class _Known(NamedTuple):
    """What earlier calls have shown.

    Attributes:
        explicit: parameters that can't be left to formulas.
        without_formulas: shapes of samples, and names of parameters, for which no layer has one.
        compared: what calls were like whose first gradient was as it is without formulas.
    """

    explicit: set[str]
    without_formulas: set[Any]
    compared: set[Any]


class Samples:
    """What is known of the gradients of samples: their norms, and how to sum them."""

    def __init__(self, transform: str, model: nn.Module, loss_fn: Loss) -> None:
        self._transform, self._model, self._loss_fn = transform, model, loss_fn
        self._known = _Known(set(), set(), set())

    def norms(self, batch: Any, targets: Any, chunking: int | Chunking | None) -> Tensor:
        """The norm of each."""
        return self._reduced("norms_of", chunking, batch, targets)

    def clipped_sum(self, max_norm: float, batch: Any, targets: Any) -> Parameters:
        """The sum, each scaled down to ``max_norm`` if it is longer."""
        return self._reduced("clipped_sum_of", max_norm, batch, targets)

    def _reduced(self, name: str, option: Any, batch: Any, targets: Any) -> Any:
        check_samples(self._transform, batch, targets)
        modules = walk(self._model)
        trained, rest, hooks = split_parameters(self._model, modules)
        loss = loss_of_sample(self._transform, self._model, self._loss_fn, rest, hooks)
        if not EAGER:
            return call_transform(name, loss, (option,), (trained, batch, targets), {})
        known = self._known
        if not self._compared(loss, trained, (batch, targets), modules):
            known = _Known(set(trained), set(), set())
        return REDUCTIONS[name](loss, option, known)(trained, batch, targets)

    def _compared(
        self, loss: Callable[..., Tensor], trained: Parameters, data: Any, modules: Walk
    ) -> bool:
        """Whether formulas give what differentiation does, once for each kind of call.

        Code that isn't a function of PyTorch, as a custom ``autograd.Function``, gets parameters
        that aren't watched. The gradient of one sample shows it.
        """
        known = self._known
        if known.explicit.issuperset(trained):
            return True
        tensors = [x for x in leaves_of(data) if isinstance(x, Tensor)]
        devices = {x.device.type for x in trained.values()}
        lowered = any(map(torch.is_autocast_enabled, devices))
        kind = (
            *((x.shape[1:], x.dtype) for x in tensors if x.dim()),
            *((name, each.dtype) for name, each in trained.items()),
            *[module.training for _, module in modules],
            lowered,
        )
        if kind in known.compared:
            return True
        if _C.transform_runs() or not all(map(_has_values, (*tensors, *trained.values()))):
            return False
        if not tensors or not all(x.dim() and x.shape[0] for x in tensors):
            return True
        first = map_tensors(lambda x: x[:1], data)
        found = _clipped_sum_of(loss, math.inf, known)(trained, *first)
        gradients = vmap(grad(loss), in_dims=(None, 0, 0))(trained, *first)
        sizes = {name: each.abs().max().item() for name, each in gradients.items() if each.numel()}
        largest = max(sizes.values(), default=0.0)
        for name, size in sizes.items():
            difference = (found[name] - gradients[name][0]).abs().max().item()
            dtype = torch.bfloat16 if lowered else trained[name].dtype
            tolerance = torch.finfo(dtype).eps ** 0.5
            if not difference <= tolerance * (size + 1e-3 * largest) and math.isfinite(largest):
                known.explicit.update(trained)
                return True
        if math.isfinite(largest) and largest > 0:
            known.compared.add(kind)
        return True


def _has_values(tensor: Tensor) -> bool:
    return not isinstance(tensor, FakeTensor) and not torch._is_functional_tensor(tensor)


def _common_dtype(trained: Parameters, default: torch.dtype) -> torch.dtype:
    """Of the norm over all."""
    dtypes = {each.dtype for each in trained.values()}
    return functools.reduce(torch.promote_types, dtypes) if dtypes else default


def _norms_of(
    loss: Callable[..., Tensor],
    chunking: int | Chunking | None,
    known: _Known | None = None,
    explicit: set[str] | None = None,
) -> Callable[[Parameters, Any, Any], Tensor]:
    """The norms of the gradients of ``loss(trained, sample, target)`` by all that is trained."""

    def norms(trained: Parameters, batch: Any, targets: Any) -> Tensor:
        if chunking is None and _has_no_formula(trained, (batch, targets), known):
            gradients = vmap(grad(loss), in_dims=(None, 0, 0))(trained, batch, targets)
            found = ghost.norms_of(gradients, leaves_of(batch)[0].shape[0])
        elif _has_no_formula(trained, (batch, targets), known):
            of_one = lambda *sample: ghost.norm_of(grad(loss)(trained, *sample))
            found = vmap(of_one, chunk_size=chunking)(batch, targets)
        else:
            one = _of_sample(loss, trained, (batch, targets), known, explicit)[0]
            of_one = lambda *sample: one(*sample).squared_norm
            found = vmap(of_one, chunk_size=chunking)(batch, targets).sqrt()
        return found.to(_common_dtype(trained, found.dtype))

    return norms


def _clipped_sum_of(
    loss: Callable[..., Tensor],
    max_norm: float,
    known: _Known | None = None,
    explicit: set[str] | None = None,
) -> Callable[[Parameters, Any, Any], Parameters]:
    """The sum of those gradients, each scaled down to ``max_norm`` if it is longer."""

    def clipped_sum(trained: Parameters, batch: Any, targets: Any) -> Parameters:
        layers: list[ghost.Layer] = []
        if _has_no_formula(trained, (batch, targets), known):
            gradients = vmap(grad(loss), in_dims=(None, 0, 0))(trained, batch, targets)
            norms, pairs = ghost.norms_of(gradients, leaves_of(batch)[0].shape[0]), []
        else:
            one, layers = _of_sample(loss, trained, (batch, targets), known, explicit)
            # To vmap a tuple is what needs no walk in Python.
            found = vmap(lambda *sample: tuple(one(*sample)))(batch, targets)
            squared_norms, gradients, pairs = found
            norms = squared_norms.sqrt()
        scales = (max_norm / norms).clamp(max=1.0)
        sums = {}
        for name, each in gradients.items():
            with ghost.outside_autocast(each):
                total = scales.to(each.dtype) @ ghost.rows_of(each)
                sums[name] = total.reshape(each.shape[1:])
        for layer, (source, cotangent) in zip(layers, pairs, strict=True):
            factors = scales.reshape(-1, *[1] * (cotangent.dim() - 1))
            scaled = cotangent * factors.to(cotangent.dtype)
            # Each sample was a batch.
            pair = source.flatten(0, 1), scaled.flatten(0, 1)
            with ghost.outside_autocast(cotangent):
                sums |= {layer.names[k]: layer.formula.gradient[k](*pair) for k in layer.names}
        return {
            name: sums[name] if name in sums else torch.zeros_like(each)
            for name, each in trained.items()
        }

    return clipped_sum


def _kind_of_sample(trained: Parameters, data: Any) -> tuple[Any, ...]:
    return (*(x.shape[1:] for x in leaves_of(data) if isinstance(x, Tensor)), *trained)


def _has_no_formula(trained: Parameters, data: Any, known: _Known | None) -> bool:
    """Has an earlier call shown that no layer has one, for samples like these?"""
    return known is not None and _kind_of_sample(trained, data) in known.without_formulas


def _of_sample(
    loss: Callable[..., Tensor],
    trained: Parameters,
    data: Any,
    known: _Known | None,
    given: set[str] | None,
) -> tuple[Callable[..., ghost.OfSample], list[ghost.Layer]]:
    """Of one sample, and the layers that were met."""
    layers: list[ghost.Layer] = []
    check = functools.partial(check_number, "per_sample_grad_norms")
    explicit = set(given or ()) if known is None else known.explicit

    def one(sample: Any, target: Any) -> ghost.OfSample:
        evaluate = lambda parameters: loss(parameters, sample, target)
        found, layers[:] = ghost.of_sample(evaluate, trained, explicit, check)
        if known is not None and not layers:
            known.without_formulas.add(_kind_of_sample(trained, data))
        return found

    return one, layers


# Each is one node of Dynamo's graphs.
REDUCTIONS: dict[str, Callable[..., Any]] = {
    "norms_of": _norms_of,
    "clipped_sum_of": _clipped_sum_of,
}


def loss_of_sample(
    transform: str, model: nn.Module, loss_fn: Loss, rest: Parameters, hooks: Hooks
) -> Callable[..., Tensor]:
    """The loss of a sample as a function of the parameters."""

    def loss(trained: Parameters, sample: Any, target: Any) -> Tensor:
        for name, hook in hooks:
            trained[name].register_hook(hook)
        batch, targets = map_tensors(lambda each: each.unsqueeze(0), (sample, target))
        found = loss_fn(functional_call(model, {**rest, **trained}, batch), targets)
        if isinstance(found, Tensor) and found.dim():
            raise RuntimeError(
                f"functorch_ext.{transform}: Expected loss_fn to return a scalar Tensor, the loss "
                f"of one sample, but got one of shape {tuple(found.shape)}. Reduce it, with "
                ".mean() or by the reduction='mean' of PyTorch's losses."
            )
        return found

    return loss


def check_model(transform: str, model: Any, loss_fn: Any) -> None:
    """Raises unless these are a module and a function."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"functorch_ext.{transform}: the model must be a torch.nn.Module, but got a "
            f"{type(model).__name__}. For a function write vmap(grad(loss), (None, 0, 0))."
        )
    if not callable(loss_fn):
        raise TypeError(
            f"functorch_ext.{transform}: loss_fn must be a function of an output and targets, but "
            f"got {kind_of(loss_fn)}."
        )


def check_max_norm(transform: str, max_norm: Any) -> None:
    """Raises unless it is a number greater than 0."""
    if not isinstance(max_norm, int | float | Tensor):
        raise TypeError(
            f"functorch_ext.{transform}: max_norm must be a positive number, but got "
            f"{kind_of(max_norm)}."
        )
    if not max_norm > 0:
        raise ValueError(
            f"functorch_ext.{transform}: max_norm must be positive, but got {max_norm!r}."
        )


def check_samples(transform: str, batch: Any, targets: Any) -> int:
    """How many samples there are. Raises unless all are tensors with as many in dimension 0."""
    counts: list[list[int]] = []
    for name, data in (("batch", batch), ("targets", targets)):
        leaves = leaves_of(data)
        for index, leaf in enumerate(leaves):
            if not isinstance(leaf, Tensor) or leaf.dim() == 0:
                got = "one without dimensions" if isinstance(leaf, Tensor) else kind_of(leaf)
                raise ValueError(
                    f"functorch_ext.{transform}: {name_of_leaf(name, data, index)} must be a "
                    f"tensor with the samples in dimension 0, but got {got}. What all samples "
                    "share, loss_fn can close over."
                )
        counts.append([leaf.shape[0] for leaf in leaves])
    if all(counts) and counts[0][0] != counts[1][0]:
        raise ValueError(
            f"functorch_ext.{transform}: the batch has {counts[0][0]} samples and the targets have "
            f"{counts[1][0]}. Both have them in dimension 0."
        )
    every = counts[0] + counts[1]
    if not every or any(count != every[0] for count in every):
        raise ValueError(
            f"functorch_ext.{transform}: the tensors of batch and targets must have the same "
            f"number of samples, in dimension 0, but have {every}."
        )
    return every[0]
