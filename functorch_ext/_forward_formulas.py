"""Derivatives of fused kernels for which PyTorch has no formula.

For forward mode PyTorch asks a registry for a decomposition where it has no formula, and runs it in
place of the kernel: only when a tangent flows through it. A second derivative of attention needs
one of the kernel that computes the first.
"""

import inspect
import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

aten = torch.ops.aten
_library = torch.library.Library("aten", "IMPL")  # its registrations live as long as it does


def install() -> None:
    """Registers the decompositions."""
    with warnings.catch_warnings():  # torch.jit is deprecated, and all that this registry takes
        warnings.simplefilter("ignore", DeprecationWarning)
        _register(aten._scaled_dot_product_flash_attention_for_cpu.default, attention)
        _register(aten.mkldnn_rnn_layer.default, lstm_layer)
        _register(aten._weight_norm_interface.default, weight_norm)
        _register(aten._pack_padded_sequence.default, pack_padded_sequence)
    for key in ("AutogradCPU", "AutogradOther"):  # plain tensors, and those of transforms
        _library.impl("_scaled_dot_product_flash_attention_for_cpu_backward", _second, key)


def _register(op: torch._ops.OpOverload, decomposition: Callable[..., object]) -> None:
    called = torch.jit.ignore(decomposition)  # noqa: F841 - a name in the source below
    signature = inspect.signature(decomposition)
    parameters = ", ".join(map(str, signature.parameters.values()))
    source = f"def decomposed({parameters}):\n  return called({', '.join(signature.parameters)})\n"
    torch.jit._register_decomposition(op, torch.jit.CompilationUnit(source).decomposed.graph)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    attn_mask: torch.Tensor | None = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention by its definition: the output, and the logarithms of the softmax's sums.

    PyTorch chooses the kernel that this stands for only without dropout.
    """
    key, value = _of_all_heads(query, key), _of_all_heads(query, value)
    scores = _scores(query, key, is_causal, attn_mask, scale)
    return torch._safe_softmax(scores, -1) @ value, scores.logsumexp(-1)


def _of_all_heads(query: Tensor, tensor: Tensor) -> Tensor:
    """Keys or values, of which several heads of queries may share one."""
    groups = query.size(-3) // tensor.size(-3)
    return tensor if groups == 1 else tensor.repeat_interleave(groups, -3)


def _scores(
    query: Tensor, key: Tensor, is_causal: bool, mask: Tensor | None, scale: float | None
) -> Tensor:
    scores = query @ key.transpose(-2, -1) * _scale(query, scale)
    if is_causal:
        later = scores.new_ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return scores if mask is None else scores + mask


def _scale(query: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(query.size(-1)) if scale is None else scale


def _second(
    by_output: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, sums: Tensor,
    dropout_p: float, is_causal: bool, *, attn_mask: Tensor | None = None,
    scale: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The backward of attention: by the kernel or, if it is differentiated, by its definition."""
    if not _is_differentiated(by_output) and not _is_differentiated(output):
        with torch._C._AutoDispatchBelowAutograd():
            return aten._scaled_dot_product_flash_attention_for_cpu_backward.default(
                by_output, query, key, value, output, sums, dropout_p, is_causal,
                attn_mask=attn_mask, scale=scale,
            )  # fmt: skip
    keys, values = _of_all_heads(query, key), _of_all_heads(query, value)
    weights = torch._safe_softmax(_scores(query, keys, is_causal, attn_mask, scale), -1)
    by_weights = by_output @ values.transpose(-2, -1)
    centred = by_weights - (by_weights * weights).sum(-1, keepdim=True)
    by_scores = weights * centred * _scale(query, scale)

    def of_heads(gradient: Tensor) -> Tensor:
        heads = key.size(-3)
        return gradient.unflatten(-3, (heads, query.size(-3) // heads)).sum(-3)

    by_keys, by_values = by_scores.transpose(-2, -1) @ query, weights.transpose(-2, -1) @ by_output
    return by_scores @ keys, of_heads(by_keys), of_heads(by_values)


def _is_differentiated(tensor: Tensor) -> bool:
    recorded = tensor.requires_grad and torch.is_grad_enabled()
    return recorded or torch._VF._unpack_dual(tensor, level=0)[1] is not None


def lstm_layer(
    input: torch.Tensor,
    weight0: torch.Tensor,
    weight1: torch.Tensor,
    weight2: torch.Tensor,
    weight3: torch.Tensor,
    hx_: torch.Tensor,
    cx_: torch.Tensor,
    reverse: bool,
    batch_sizes: list[int],
    mode: int,
    hidden_size: int,
    num_layers: int,
    has_biases: bool,
    bidirectional: bool,
    batch_first: bool,
    train: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One layer and direction of an LSTM, step by step: the outputs, and the last states."""
    hidden, cell, outputs = hx_, cx_, []
    steps = input.unbind(0)
    for step in reversed(steps) if reverse else steps:
        gates = step @ weight0.t() + hidden @ weight1.t()
        if has_biases:
            gates = gates + weight2 + weight3
        admit, forget, new, show = gates.chunk(4, -1)
        cell = forget.sigmoid() * cell + admit.sigmoid() * new.tanh()
        hidden = show.sigmoid() * cell.tanh()
        outputs.append(hidden)
    if reverse:
        outputs.reverse()
    stacked = torch.stack(outputs)
    return stacked.view(*input.shape[:-1], hidden_size), hidden, cell, input.new_empty(0)


def weight_norm(
    v: torch.Tensor, g: torch.Tensor, dim: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight of the direction ``v`` and the norms ``g`` along a dimension; the norms of ``v``."""
    norms = torch.norm_except_dim(v, 2, dim)
    return v * (g / norms), norms


def pack_padded_sequence(
    input: torch.Tensor, lengths: torch.Tensor, batch_first: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The steps of sequences of descending lengths in one row; how many sequences each step has."""
    steps = (input.transpose(0, 1) if batch_first else input).unbind(0)
    counts = [int((lengths > i).sum()) for i in range(int(lengths[0]))]
    rows: list[Tensor] = [step[:count] for step, count in zip(steps, counts)]
    return torch.cat(rows), torch.tensor(counts)
