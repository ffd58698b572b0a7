"""Gradients of each sample of a batch: all of them, their norms, or their clipped sum."""

import functools
import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from functorch_ext._chunk_sizes import Chunking, ChunkSize, checked_chunk_size
from functorch_ext._module_walk import split_parameters, walk
from functorch_ext._pytree import leaves_of, map_tensors
from functorch_ext._sample_gradients import (
    Loss,
    Parameters,
    Samples,
    check_max_norm,
    check_model,
    check_samples,
    loss_of_sample,
)
from functorch_ext.reverse import grad
from functorch_ext.vmap import vmap


def per_sample_grads(
    model: nn.Module, loss_fn: Loss, *, chunk_size: ChunkSize = None, progress: bool = False
) -> Callable[[Any, Any], Parameters]:
    """The gradient of each sample's loss by the parameters of a model that takes batches.

    Of sample i it is the gradient of ``loss_fn(model(batch[i:i+1]), targets[i:i+1])``, computed for
    all samples together by ``vmap(grad(...))``.

    Args:
        model: Takes a batch. Parameters that don't require grad are constants. The result isn't
            linked to the model's parameters: the second derivative by them needs ``grad`` around
            ``functional_call``. Their hooks get the gradient of a sample, except under
            ``torch.compile``, which doesn't see them.
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
            does, or draws random numbers, as dropout does: for these write
            ``vmap(grad(loss), (None, 0, 0), randomness="different")``.
        ValueError: the batch and the targets have different numbers of samples; ``chunk_size``
            isn't positive.
        TypeError: the model isn't a module, or the loss no function.

    Example::

        >>> model = torch.nn.Linear(2, 1)
        >>> grads = per_sample_grads(model, torch.nn.functional.mse_loss)
        >>> {name: each.shape for name, each in grads(torch.ones(3, 2), torch.ones(3, 1)).items()}
        {'weight': torch.Size([3, 1, 2]), 'bias': torch.Size([3, 1])}
    """
    check_model("per_sample_grads", model, loss_fn)
    chunking = checked_chunk_size("per_sample_grads", chunk_size, progress)

    def gradients(batch: Any, targets: Any) -> Parameters:
        check_samples("per_sample_grads", batch, targets)
        trained, rest, hooks = split_parameters(model, walk(model))
        loss = loss_of_sample("per_sample_grads", model, loss_fn, rest, hooks)
        of_samples = vmap(grad(loss), in_dims=(None, 0, 0), chunk_size=chunking)
        return of_samples(trained, batch, targets) if trained else {}

    return gradients


def per_sample_grad_norms(
    model: nn.Module, loss_fn: Loss, *, chunk_size: ChunkSize = None, progress: bool = False
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
        TypeError, ValueError: as for :func:`per_sample_grads`.

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
    check_model("per_sample_grad_norms", model, loss_fn)
    chunking = checked_chunk_size("per_sample_grad_norms", chunk_size, progress)
    samples = Samples("per_sample_grad_norms", model, loss_fn)

    def norms(batch: Any, targets: Any) -> Tensor:
        return samples.norms(batch, targets, chunking)

    return norms


def clipped_grad_sum(
    model: nn.Module,
    loss_fn: Loss,
    max_norm: float,
    *,
    chunk_size: ChunkSize = None,
    progress: bool = False,
) -> Callable[[Any, Any], Parameters]:
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
        TypeError: as for :func:`per_sample_grads`.
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
    check_model("clipped_grad_sum", model, loss_fn)
    check_max_norm("clipped_grad_sum", max_norm)
    chunking = checked_chunk_size("clipped_grad_sum", chunk_size, progress)
    if not isinstance(chunking, Chunking):
        chunking = Chunking("clipped_grad_sum", chunking)

    known = Samples("clipped_grad_sum", model, loss_fn)
    clipped_sum = functools.partial(known.clipped_sum, max_norm)

    def clipped(batch: Any, targets: Any) -> Parameters:
        samples = check_samples("clipped_grad_sum", batch, targets)
        total: Parameters = {}
        chunks = chunking.of_call(samples, leaves_of((batch, targets)))
        for start, count in chunks:
            piece = operator.itemgetter(slice(start, start + count))
            data = (batch, targets) if count == samples else map_tensors(piece, (batch, targets))
            sums = chunks.call(clipped_sum, *data)
            total = {name: total[name] + sums[name] if total else sums[name] for name in sums}
        return total

    return clipped
