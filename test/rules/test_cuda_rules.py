"""Rules for operators that only a GPU has a kernel for, run on fake tensors: shapes, no numbers.

On a GPU ``pytest --device cuda`` runs the same operators with numbers, where they are asked for by
public functions.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from functorch_ext import _C, vmap
from test.releases import since

pytestmark = [
    pytest.mark.filterwarnings("error::functorch_ext.FallbackWarning"),
    pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="PyTorch is built without CUDA"),
]

aten = torch.ops.aten

SAMPLES = 3
ROWS = (2, 4, 16, 8)  # a batch of one sample, heads, positions, features


def fake(*shape, dtype=torch.float16):
    return torch.empty(shape, dtype=dtype, device="cuda")


def rows():
    return fake(SAMPLES, *ROWS)


def flash(q, k, v):
    return aten._scaled_dot_product_flash_attention(q, k, v)


def flash_backward(g, q, k, v):
    out, logsumexp, cum_q, cum_k, max_q, max_k, seed, offset, _ = flash(q, k, v)
    return aten._scaled_dot_product_flash_attention_backward(
        g, q, k, v, out, logsumexp, cum_q, cum_k, max_q, max_k, 0.0, False, seed, offset
    )


def efficient(q, k, v, bias=None):
    return aten._scaled_dot_product_efficient_attention(q, k, v, bias, True)


def efficient_backward(g, q, k, v):
    out, logsumexp, seed, offset = efficient(q, k, v)
    return aten._scaled_dot_product_efficient_attention_backward(
        g, q, k, v, None, out, logsumexp, seed, offset, 0.0, [True, True, True, False]
    )


def cudnn(q, k, v):
    return aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)


def cudnn_backward(g, q, k, v):
    out, logsumexp, cum_q, cum_k, max_q, max_k, seed, offset, _ = cudnn(q, k, v)
    return aten._scaled_dot_product_cudnn_attention_backward(
        g, q, k, v, out, logsumexp, seed, offset, None, cum_q, cum_k, max_q, max_k, 0.0, False
    )


def images():
    return fake(SAMPLES, 2, 4, 5, 5, dtype=torch.float32)


def channels():
    return fake(SAMPLES, 4, dtype=torch.float32)


def batch_norm(x, weight, bias):
    return aten.cudnn_batch_norm(x, weight, bias, None, None, True, 0.1, 1e-5)


def batch_norm_backward(x, weight, bias, grad):
    _, mean, variance, reserve = batch_norm(x, weight, bias)
    return aten.cudnn_batch_norm_backward(
        x, grad, weight, None, None, mean, variance, 1e-5, reserve
    )


def batch_norm_miopen(x, weight, bias):
    return aten.miopen_batch_norm(x, weight, bias, None, None, True, 0.1, 1e-5)


def batch_norm_miopen_backward(x, weight, bias, grad):
    _, mean, variance = batch_norm_miopen(x, weight, bias)
    return aten.miopen_batch_norm_backward(x, grad, weight, None, None, mean, variance, 1e-5)


# name: (function, what makes its arguments)
ATTENTION = {
    "flash": (flash, (rows,) * 3),
    "flash, backward": (flash_backward, (rows,) * 4),
    "efficient": (efficient, (rows,) * 3),
    "efficient, with a bias": (efficient, (*(rows,) * 3, lambda: fake(SAMPLES, 2, 4, 16, 16))),
    "efficient, backward": (efficient_backward, (rows,) * 4),
    "cudnn": (cudnn, (rows,) * 3),
    "cudnn, backward": (cudnn_backward, (rows,) * 4),
}
NORMALIZATION = {
    "batch_norm": (batch_norm, (images, channels, channels)),
    "batch_norm, backward": (batch_norm_backward, (images, channels, channels, images)),
    "miopen": (batch_norm_miopen, (images, channels, channels)),
    "miopen, backward": (batch_norm_miopen_backward, (images, channels, channels, images)),
}


def cell(width):
    return lambda: fake(SAMPLES, 2, width, dtype=torch.float32)


# name: (function, what makes its arguments, the shapes of a sample's results). PyTorch has no shapes
# of theirs for fake tensors.
CELLS = {
    "lstm": (aten._thnn_fused_lstm_cell, (cell(16), cell(16), cell(4)), [(2, 4), (2, 4), (2, 16)]),
    "lstm, backward": (
        lambda *args: aten._thnn_fused_lstm_cell_backward_impl(*args, True),
        (*(cell(4),) * 4, cell(16)),
        [(2, 16), (2, 4), (16,)],
    ),
    "gru": (aten._thnn_fused_gru_cell, (cell(12), cell(12), cell(4)), [(2, 4), (2, 20)]),
    "gru, backward": (
        lambda *args: aten._thnn_fused_gru_cell_backward(*args, True),
        (cell(4), cell(20)),
        [(2, 12), (2, 12), (2, 4), (12,), (12,)],
    ),
}


def keys():
    return fake(SAMPLES, 2, dtype=torch.uint64)


def drawn():
    return fake(SAMPLES, 4, dtype=torch.float32)


# Looked up when they run: not all releases have them.
KEYED = {
    "normal": (lambda x, k: aten._philox_normal_(x, k), (drawn, keys)),
    "uniform": (lambda x, k: aten._philox_uniform_(x, k), (drawn, keys)),
    "split": (lambda k: aten._philox_key_split(k, 5), (keys,)),
    "fold in": (lambda k: aten._philox_key_fold_in(k, 5), (keys,)),
}

RUN_HERE = {
    "_philox_key_fold_in",
    "_philox_key_split",
    "_philox_normal_",
    "_philox_uniform_",
    "_scaled_mm_v2",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_cudnn_attention_backward",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_efficient_attention_backward",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_backward",
    "_thnn_fused_gru_cell",
    "_thnn_fused_gru_cell_backward",
    "_thnn_fused_lstm_cell",
    "_thnn_fused_lstm_cell_backward_impl",
    "cudnn_batch_norm",
    "cudnn_batch_norm_backward",
    "miopen_batch_norm",
    "miopen_batch_norm_backward",
}
ELSEWHERE = (
    "CPU",
    "CompositeImplicitAutograd",
    "CompositeExplicitAutograd",
    "CompositeExplicitAutogradNonFunctional",
)


def tensors(results):
    results = results if isinstance(results, (tuple, list)) else (results,)
    return [each for each in results if isinstance(each, torch.Tensor)]


def check(function, makers, in_dims):
    """Results and shapes as of samples one by one; ``in_dims`` is 0 or None for each argument."""
    with FakeTensorMode():
        arguments = [maker() for maker in makers]
        given = [x if dim == 0 else x[0] for x, dim in zip(arguments, in_dims)]
        of_sample = tensors(function(*(x[0] for x in arguments)))
        kept = [i for i, each in enumerate(of_sample) if each.is_floating_point() and each.numel()]
        of_batch = vmap(lambda *args: [tensors(function(*args))[i] for i in kept], in_dims)(*given)
        for i, found in zip(kept, of_batch, strict=True):
            assert found.shape == (SAMPLES, *of_sample[i].shape)
            assert found.dtype == of_sample[i].dtype and found.device == of_sample[i].device


def in_dims_of(makers):
    yield (0,) * len(makers)
    for position in range(len(makers)):
        yield tuple(0 if i == position else None for i in range(len(makers)))


def cases(table):
    for name, (function, makers) in table.items():
        for in_dims in in_dims_of(makers):
            yield pytest.param(function, makers, in_dims, id=f"{name}-{in_dims}")


@pytest.mark.parametrize(("function", "makers", "in_dims"), list(cases(ATTENTION)))
def test_attention(function, makers, in_dims):
    check(function, makers, in_dims)


@pytest.mark.parametrize(("function", "makers", "in_dims"), list(cases(NORMALIZATION)))
def test_normalization(function, makers, in_dims):
    check(function, makers, in_dims)


@pytest.mark.parametrize(("function", "makers", "shapes"), CELLS.values(), ids=CELLS)
def test_recurrent_cells(function, makers, shapes):
    with FakeTensorMode():
        arguments = [maker() for maker in makers]
        for results in (
            vmap(function)(*arguments),
            vmap(function, (0, *[None] * (len(makers) - 1)))(
                arguments[0], *(x[0] for x in arguments[1:])
            ),
        ):
            assert [tuple(each.shape) for each in results] == [(SAMPLES, *s) for s in shapes]
            assert all(each.device.type == "cuda" for each in results)


@since((2, 12), "there are no keys")
@pytest.mark.parametrize(("function", "makers"), KEYED.values(), ids=KEYED)
def test_random_numbers_by_key(function, makers):
    check(function, makers, (0,) * len(makers))


SCALES = pytest.mark.parametrize(
    "scales", [((1,), (1,), 0), ((16, 1), (1, 32), 1)], ids=["one", "rows"]
)


@SCALES
def test_scaled_mm(scales):
    *shapes, recipe = scales

    def function(a, b, scale_a, scale_b):
        options = [scale_a], [recipe], [0], [scale_b], [recipe], [0], None, torch.bfloat16
        return aten._scaled_mm_v2(a, b.t(), *options)

    makers = (
        lambda: fake(SAMPLES, 16, 64, dtype=torch.float8_e4m3fn),
        lambda: fake(SAMPLES, 32, 64, dtype=torch.float8_e4m3fn),
        *(lambda shape=shape: fake(SAMPLES, *shape, dtype=torch.float32) for shape in shapes),
    )
    check(function, makers, (0,) * 4)
    check(function, makers, (0, None, None, None))


@since((2, 15), "there is no such operator")
@pytest.mark.parametrize("name", ["_scaled_addmm", "_scaled_addmm_"])
@SCALES
def test_scaled_addmm(name, scales):
    *shapes, recipe = scales

    def function(x, a, b, scale_a, scale_b):
        operator = getattr(aten, name)
        return operator(x, a, b.t(), [scale_a], [recipe], [0], [scale_b], [recipe], [0])

    makers = (
        lambda: fake(SAMPLES, 16, 32, dtype=torch.bfloat16),
        lambda: fake(SAMPLES, 16, 64, dtype=torch.float8_e4m3fn),
        lambda: fake(SAMPLES, 32, 64, dtype=torch.float8_e4m3fn),
        *(lambda shape=shape: fake(SAMPLES, *shape, dtype=torch.float32) for shape in shapes),
    )
    check(function, makers, (0,) * 5)
    check(function, makers, (0, 0, None, None, None))


def test_each_rule_for_a_gpu_alone_is_run():
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    names = {
        name.removeprefix("aten::")
        for name, _, _ in _C.registered_operators()
        if has_kernel(name, "CUDA") and not any(has_kernel(name, key) for key in ELSEWHERE)
    }
    assert names <= RUN_HERE
