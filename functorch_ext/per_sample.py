"""Gradients of each sample of a batch: all of them, their norms, or their clipped sum."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from functorch_ext import _C
from functorch_ext import _ghost_norms as ghost
from functorch_ext._chunk_sizes import Chunking, ChunkSize, checked_chunk_size
from functorch_ext._dynamo.entry import EAGER, call_transform
from functorch_ext._module_walk import Walk, split_parameters, walk
from functorch_ext._pytree import leaves_of, map_tensors
from functorch_ext.nn import functional_call
from functorch_ext.reverse import check_number, grad
from functorch_ext.vmap import vmap

_Loss = Callable[[Any, Any], Tensor]
_Parameters = dict[str, Tensor]


def per_sample_grads(
    model: nn.Module, loss_fn: _Loss, *, chunk_size: ChunkSize = None, progress: bool = False
) -> Callable[[Any, Any], _Parameters]:
    """The gradient of each sample's loss by the parameters of a model that takes batches.

    Of sample i it is the gradient of ``loss_fn(model(batch[i:i+1]), targets[i:i+1])``, computed for
    all samples together by ``vmap(grad(...))``.

    Args:
        model: Takes a batch. Parameters that don't require grad are constants. The result isn't
            linked to the model's parameters: the second derivative by them needs ``grad`` around
            ``functional_call``.
        loss_fn: Takes an output of the model and targets, and returns a tensor without dimensions;
            its reduction is that over a single sample.
        chunk_size: Compute this many samples at a time; all at once if ``None``. Or how much memory
            to take, as for :func:`vmap`.
        progress: Show how many samples are done, in a bar of ``tqdm``.

    Returns:
        A function of ``(batch, targets)``: tensors with the samples in dimension 0, or containers
        of such; a tuple as the batch is several arguments of the model. It returns a dict from
        names of parameters to gradients with the samples in dimension 0.

    Raises:
        RuntimeError: the loss isn't a number, or the model mixes samples, as batch norm in training
            does, or draws random numbers.
        ValueError: the batch and the targets have different numbers of samples; ``chunk_size``
            isn't positive.

    Example::

        >>> model = torch.nn.Linear(2, 1)
        >>> grads = per_sample_grads(model, torch.nn.functional.mse_loss)
        >>> {name: each.shape for name, each in grads(torch.ones(3, 2), torch.ones(3, 1)).items()}
        {'weight': torch.Size([3, 1, 2]), 'bias': torch.Size([3, 1])}
    """
    chunking = checked_chunk_size("per_sample_grads", chunk_size, progress)

    def gradients(batch: Any, targets: Any) -> _Parameters:
        trained, rest = split_parameters(model, walk(model))
        loss = _sample_loss(model, loss_fn, rest)
        of_samples = vmap(grad(loss), in_dims=(None, 0, 0), chunk_size=chunking)
        return of_samples(trained, batch, targets)

    return gradients


def per_sample_grad_norms(
    model: nn.Module, loss_fn: _Loss, *, chunk_size: ChunkSize = None, progress: bool = False
) -> Callable[[Any, Any], Tensor]:
    """The norm of each sample's gradient, over all parameters, mostly without the gradients.

    For linear layers, those of attention among them, convolutions (of one and two dimensions) and
    embeddings the norm follows from what the layer got, a_t at position t, and from the cotangent
    of what it returned, g_t::

        |sum_t g_t a_t^T|^2 = sum_{s,t} (a_s . a_t) (g_s . g_t)

    Where a weight has fewer elements than the a_t and g_t together, its gradient takes less, and is
    computed; so it is for parameters that other functions use, or that are used more than once.

    Args:
        model: As for :func:`per_sample_grads`.
        loss_fn: As for :func:`per_sample_grads`.
        chunk_size: Compute this many samples at a time; all at once if ``None``. Or how much memory
            to take, as for :func:`vmap`.
        progress: Show how many samples are done, in a bar of ``tqdm``.

    Returns:
        A function of ``(batch, targets)`` that returns a vector, one norm per sample.

    Raises:
        RuntimeError: as for :func:`per_sample_grads`.
        ValueError: as for :func:`per_sample_grads`.

    Example::

        >>> model = torch.nn.Linear(2, 1)
        >>> loss = lambda output, target: (output - target).sum()
        >>> inputs = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
        >>> per_sample_grad_norms(model, loss)(inputs, torch.ones(2, 1))  # |(x, 1)|
        tensor([1.7321, 3.0000])

    Source: I. Goodfellow, "Efficient per-example gradient computations", arXiv 1510.01799; X. Li et
    al., "Large language models can be strong differentially private learners", arXiv 2110.05679;
    Z. Bu et al., "Scalable and efficient training of large convolutional neural networks with
    differential privacy", arXiv 2205.10683.
    """
    chunking = checked_chunk_size("per_sample_grad_norms", chunk_size, progress)
    samples = _Samples(model, loss_fn)

    def norms(batch: Any, targets: Any) -> Tensor:
        return samples.norms(batch, targets, chunking)

    return norms


def clipped_grad_sum(
    model: nn.Module,
    loss_fn: _Loss,
    max_norm: float,
    *,
    chunk_size: ChunkSize = None,
    progress: bool = False,
) -> Callable[[Any, Any], _Parameters]:
    """The sum of the samples' gradients, each scaled down to ``max_norm`` if it is longer.

    What differentially private training adds its noise to::

        sum_i min(1, max_norm / |grad_i|) grad_i

    One backward pass gives the norms, as for :func:`per_sample_grad_norms`, and what the gradients
    are made of: once the norms are known, the sum over all samples of ``g_t a_t^T``, scaled, is one
    product.

    Args:
        model: As for :func:`per_sample_grads`.
        loss_fn: As for :func:`per_sample_grads`.
        max_norm: The greatest norm of a sample's gradient over all parameters; positive.
        chunk_size: Compute this many samples at a time, to bound memory; all at once if ``None``.
            Or how much memory to take, as for :func:`vmap`.
        progress: Show how many samples are done, in a bar of ``tqdm``.

    Returns:
        A function of ``(batch, targets)`` that returns a dict from names of parameters to sums.

    Raises:
        RuntimeError: as for :func:`per_sample_grads`.
        ValueError: as for :func:`per_sample_grads`, or ``max_norm`` isn't positive.

    Example::

        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> loss = lambda output, target: (output * target).sum()
        >>> inputs, targets = torch.tensor([[3.0], [0.5]]), torch.ones(2, 1)
        >>> clipped_grad_sum(model, loss, 1.0)(inputs, targets)  # 3 is clipped to 1
        {'weight': tensor([[1.5000]])}

    Source: M. Abadi et al., "Deep learning with differential privacy", arXiv 1607.00133; Z. Bu et
    al., "Differentially private optimization on large model at small cost", arXiv 2210.00038; and
    those of :func:`per_sample_grad_norms`.
    """
    chunking = checked_chunk_size("clipped_grad_sum", chunk_size, progress)
    if not isinstance(chunking, Chunking):
        chunking = Chunking("clipped_grad_sum", chunking)
    if not max_norm > 0:
        raise ValueError(
            f"functorch_ext.clipped_grad_sum: max_norm must be positive, but got {max_norm!r}."
        )

    clipped_sum = functools.partial(_Samples(model, loss_fn).clipped_sum, max_norm)

    def clipped(batch: Any, targets: Any) -> _Parameters:
        total: _Parameters = {}
        leaves = leaves_of((batch, targets))
        chunks = chunking.of_call(leaves[0].shape[0], leaves)
        for start, count in chunks:
            piece = operator.itemgetter(slice(start, start + count))
            is_all = count == leaves[0].shape[0]
            data = (batch, targets) if is_all else map_tensors(piece, (batch, targets))
            sums = chunks.call(clipped_sum, *data)
            total = {name: total[name] + sums[name] if total else sums[name] for name in sums}
        return total

    return clipped


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


class _Samples:
    """What is known of the gradients of samples: their norms, and how to sum them."""

    def __init__(self, model: nn.Module, loss_fn: _Loss) -> None:
        self._model, self._loss_fn = model, loss_fn
        self._known = _Known(set(), set(), set())

    def norms(self, batch: Any, targets: Any, chunking: int | Chunking | None) -> Tensor:
        """The norm of each."""
        return self._reduced("norms_of", chunking, batch, targets)

    def clipped_sum(self, max_norm: float, batch: Any, targets: Any) -> _Parameters:
        """The sum, each scaled down to ``max_norm`` if it is longer."""
        return self._reduced("clipped_sum_of", max_norm, batch, targets)

    def _reduced(self, name: str, option: Any, batch: Any, targets: Any) -> Any:
        modules = walk(self._model)
        trained, rest = split_parameters(self._model, modules)
        loss = _sample_loss(self._model, self._loss_fn, rest)
        if not EAGER:
            return call_transform(name, loss, (option,), (trained, batch, targets), {})
        known = self._known
        if not self._compared(loss, trained, (batch, targets), modules):
            known = _Known(set(trained), set(), set())
        return REDUCTIONS[name](loss, option, known)(trained, batch, targets)

    def _compared(
        self, loss: Callable[..., Tensor], trained: _Parameters, data: Any, modules: Walk
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


def _common_dtype(trained: _Parameters, default: torch.dtype) -> torch.dtype:
    """Of the norm over all."""
    dtypes = {each.dtype for each in trained.values()}
    return functools.reduce(torch.promote_types, dtypes) if dtypes else default


def _norms_of(
    loss: Callable[..., Tensor],
    chunking: int | Chunking | None,
    known: _Known | None = None,
    explicit: set[str] | None = None,
) -> Callable[[_Parameters, Any, Any], Tensor]:
    """The norms of the gradients of ``loss(trained, sample, target)`` by all that is trained."""

    def norms(trained: _Parameters, batch: Any, targets: Any) -> Tensor:
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
) -> Callable[[_Parameters, Any, Any], _Parameters]:
    """The sum of those gradients, each scaled down to ``max_norm`` if it is longer."""

    def clipped_sum(trained: _Parameters, batch: Any, targets: Any) -> _Parameters:
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


def _kind_of_sample(trained: _Parameters, data: Any) -> tuple[Any, ...]:
    return (*(x.shape[1:] for x in leaves_of(data) if isinstance(x, Tensor)), *trained)


def _has_no_formula(trained: _Parameters, data: Any, known: _Known | None) -> bool:
    """Has an earlier call shown that no layer has one, for samples like these?"""
    return known is not None and _kind_of_sample(trained, data) in known.without_formulas


def _of_sample(
    loss: Callable[..., Tensor],
    trained: _Parameters,
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


def _sample_loss(model: nn.Module, loss_fn: _Loss, rest: _Parameters) -> Callable[..., Tensor]:
    """The loss of a sample as a function of the parameters."""

    def loss(trained: _Parameters, sample: Any, target: Any) -> Tensor:
        batch, targets = map_tensors(lambda each: each.unsqueeze(0), (sample, target))
        return loss_fn(functional_call(model, {**rest, **trained}, batch), targets)

    return loss
