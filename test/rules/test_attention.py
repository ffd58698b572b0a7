"""Scaled dot-product attention and the modules made of it, against loops over plain PyTorch.

The oracle for derivatives is attention written out in products of matrices: PyTorch's fused kernel
has neither forward mode nor second derivatives.
"""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functorch_ext
from functorch_ext import functional_call, grad, hessian, jacrev, jvp, vmap
from test import oracle
from test.oracle import assert_close, loop, rand

pytestmark = pytest.mark.filterwarnings("error::functorch_ext.FallbackWarning")
BATCH, QUERIES, KEYS, FEATURES = 3, 4, 5, 6
attention = F.scaled_dot_product_attention


def written_out(q, k, v, mask=None, is_causal=False, scale=None):
    """Attention as its definition says."""
    scores = q @ k.transpose(-2, -1) * (scale or 1 / math.sqrt(q.shape[-1]))
    if is_causal:
        seen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ v


def qkv(*leading):
    sizes = (QUERIES, KEYS, KEYS)
    return [rand(*leading, size, FEATURES) for size in sizes]


def scalar(function):
    return lambda *args: function(*args).sin().sum()


LEADING = ((), (2,), (2, 3), (2, 2, 3))


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize(
    "in_dims", [d for d in itertools.product((0, None), repeat=3) if any(x is not None for x in d)]
)
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}])
def test_any_argument_batched(leading, in_dims, options):
    args = [
        rand(BATCH, *x.shape) if dim == 0 else x
        for x, dim in zip(qkv(*leading), in_dims, strict=True)
    ]

    def ours(q, k, v):
        return attention(q, k, v, **options)

    def plain(q, k, v):
        return written_out(q, k, v, **options)

    assert_close(vmap(ours, in_dims)(*args), loop(plain, in_dims)(*args))

    def gradients(*args):
        return list(grad(scalar(ours), (0, 1, 2))(*args))

    def plain_gradients(*args):
        return [oracle.grad(scalar(plain), i)(*args) for i in range(3)]

    assert_close(vmap(gradients, in_dims)(*args), loop(plain_gradients, in_dims)(*args))


MASKS = (
    (QUERIES, KEYS),
    (1, KEYS),
    (3, QUERIES, KEYS),
    (2, 1, QUERIES, KEYS),
    (1, 3, 1, KEYS),
)


@pytest.mark.parametrize("shape", MASKS)
@pytest.mark.parametrize("boolean", [True, False])
@pytest.mark.parametrize("in_dims", [(0, 0, 0, 0), (0, 0, 0, None), (None, None, None, 0)])
def test_masks(shape, boolean, in_dims):
    sizes = [(2, 3, *x.shape) for x in qkv()]
    args = [
        rand(*size) if dim is None else rand(BATCH, *size)
        for size, dim in zip(sizes, in_dims, strict=False)
    ]
    mask = rand(*shape) if in_dims[3] is None else rand(BATCH, *shape)
    if boolean:
        mask = mask > -0.5
        mask[..., 0] = True
    args.append(mask)
    assert_close(vmap(attention, in_dims)(*args), loop(written_out, in_dims)(*args))
    positions = (0, 1, 2) if boolean else (0, 1, 2, 3)

    def gradients(*args):
        return list(grad(scalar(attention), positions)(*args))

    def plain(*args):
        return [oracle.grad(scalar(written_out), i)(*args) for i in positions]

    assert_close(vmap(gradients, in_dims)(*args), loop(plain, in_dims)(*args))
    if not boolean:
        total = grad(lambda *args: vmap(attention, in_dims)(*args).sin().sum(), 3)(*args)
        want = oracle.grad(lambda *args: loop(written_out, in_dims)(*args).sin().sum(), 3)(*args)
        assert_close(total, want)


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (0, None, None), (None, 0, 0)])
def test_grouped_queries(in_dims):
    args = [
        rand(*([BATCH] if dim == 0 else []), 2, heads, size, FEATURES)
        for heads, size, dim in zip((4, 2, 2), (QUERIES, KEYS, KEYS), in_dims, strict=True)
    ]

    def ours(q, k, v):
        return attention(q, k, v, enable_gqa=True)

    def plain(q, k, v):
        return written_out(q, k.repeat_interleave(2, -3), v.repeat_interleave(2, -3))

    assert_close(vmap(ours, in_dims)(*args), loop(plain, in_dims)(*args))
    got = vmap(lambda *args: list(grad(scalar(ours), (0, 1, 2))(*args)), in_dims)(*args)
    want = loop(lambda *args: [oracle.grad(scalar(plain), i)(*args) for i in range(3)], in_dims)(
        *args
    )
    assert_close(got, want)


SECOND = {
    "jvp": lambda f: lambda *args: jvp(f, args, tuple(x.cos() for x in args))[1],
    "jvp(grad)": lambda f: (
        lambda *args: jvp(grad(scalar(f)), args, tuple(x.cos() for x in args))[1]
    ),
    "grad(jvp)": lambda f: grad(
        lambda *args: scalar(lambda *args: jvp(f, args, tuple(x.cos().detach() for x in args))[1])(
            *args
        )
    ),
    "grad(grad)": lambda f: grad(scalar(grad(scalar(f)))),
    "hessian": lambda f: hessian(scalar(f)),
    "jacrev(jacrev)": lambda f: jacrev(jacrev(scalar(f))),
    "jvp(jvp)": lambda f: (
        lambda *args: jvp(
            lambda *args: jvp(f, args, tuple(x.cos() for x in args))[1],
            args,
            tuple(x.sin() for x in args),
        )[1]
    ),
    "linearize": lambda f: (
        lambda *args: functorch_ext.linearize(f, *args)[1](*(x.cos() for x in args))
    ),
}
VARIANTS = {"plain": {}, "causal": {"is_causal": True}, "mask": {"mask": True}}


@pytest.mark.parametrize("name", SECOND)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("leading", [(2, 1), (2,)])
def test_further_derivatives(name, variant, leading):
    """Alone, inside vmap and around it; the oracle is the same transform of the definition."""
    options = dict(VARIANTS[variant])
    if options.pop("mask", False):
        options["attn_mask"] = rand(QUERIES, KEYS) > -0.5
        options["attn_mask"][:, 0] = True

    def ours(q, k, v):
        return attention(q, k, v, **options)

    def definition(q, k, v):
        return written_out(q, k, v, options.get("attn_mask"), options.get("is_causal", False))

    transform = SECOND[name]
    args = qkv(*leading)
    assert_close(transform(ours)(*args), transform(definition)(*args))
    many = [rand(BATCH, *x.shape) for x in args]
    assert_close(vmap(transform(ours))(*many), loop(transform(definition))(*many))
    around = transform(lambda *args: vmap(ours)(*args).sum(0))
    assert_close(around(*many), transform(lambda *args: written_out_all(definition, args))(*many))


def written_out_all(definition, args):
    return sum(definition(*sample) for sample in zip(*args, strict=True))


@pytest.mark.parametrize("variant", [{}, {"is_causal": True}])
def test_nested(variant):
    q, k, v = (rand(2, BATCH, 3, size, FEATURES) for size in (QUERIES, KEYS, KEYS))

    def ours(q, k, v):
        return attention(q, k, v, **variant)

    def plain(q, k, v):
        return written_out(q, k, v, **variant)

    in_dims = (0, None, 0)
    got = vmap(vmap(ours, in_dims))(q, k[:, 0], v)
    assert_close(got, loop(loop(plain, in_dims))(q, k[:, 0], v))
    got = vmap(grad(lambda q, k, v: vmap(ours)(q, k, v).sin().sum()))(q, k, v)
    assert_close(got, loop(oracle.grad(lambda q, k, v: loop(plain)(q, k, v).sin().sum()))(q, k, v))


def test_fully_masked_rows_are_zero():
    q, k, v = (rand(BATCH, 2, size, FEATURES) for size in (QUERIES, KEYS, KEYS))
    mask = torch.ones(QUERIES, KEYS, dtype=torch.bool)
    mask[1] = False
    got = vmap(lambda q, k, v: attention(q, k, v, mask))(q, k, v)
    assert (got[:, :, 1] == 0).all()
    tangent = vmap(lambda q, k, v: jvp(lambda q: attention(q, k, v, mask), (q,), (q,))[1])(q, k, v)
    assert (tangent[:, :, 1] == 0).all() and not tangent.isnan().any()


def test_no_samples():
    q, k, v = (torch.zeros(0, 2, size, FEATURES) for size in (QUERIES, KEYS, KEYS))
    assert vmap(attention)(q, k, v).shape == (0, 2, QUERIES, FEATURES)
    assert vmap(grad(scalar(attention)))(q, k, v).shape == q.shape


@pytest.mark.parametrize("leading", LEADING)
def test_dropout(leading):
    q, k = torch.zeros(BATCH, *leading, 8, 4), torch.zeros(BATCH, *leading, 64, 4)
    v = torch.ones(BATCH, *leading, 64, 1)

    def dropped(q, k, v):
        return attention(q, k, v, dropout_p=0.5)

    with pytest.raises(RuntimeError, match="randomness='error'"):
        vmap(dropped)(q, k, v)
    for randomness in ("different", "same"):
        found = vmap(dropped, randomness=randomness)(q, k, v)
        assert found.shape == (BATCH, *leading, 8, 1)
        assert abs(found.mean().item() - 1) < 0.2
        agree = torch.allclose(found[0], found[1])
        assert agree == (randomness == "same")
        # The mask of the backward pass is that of the forward pass: the output is linear in v.
        output, gradient = vmap(
            lambda q, k, v: functorch_ext.grad_and_value(lambda v: dropped(q, k, v).sum())(v)[::-1],
            randomness=randomness,
        )(q, k, v)
        assert_close(gradient.flatten(1).sum(1), output, 1e-4)
    shared = vmap(lambda x: dropped(q[0], k[0], v[0]) + x, randomness="different")(
        torch.zeros(BATCH)
    )
    assert not torch.allclose(shared[0], shared[1])


# Modules.


def modules():
    yield "attention", nn.MultiheadAttention(6, 2, batch_first=True)
    yield "encoder", nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True)
    yield (
        "encoder, norm first",
        nn.TransformerEncoderLayer(6, 2, 8, 0.0, F.gelu, batch_first=True, norm_first=True),
    )
    yield "decoder", nn.TransformerDecoderLayer(6, 2, 8, 0.0, batch_first=True)


def run_module(module, parameters, x, **options):
    if isinstance(module, nn.MultiheadAttention):
        return list(functional_call(module, parameters, (x, x, x), options))
    if isinstance(module, nn.TransformerDecoderLayer):
        return [functional_call(module, parameters, (x, x.flip(-2)))]
    return [functional_call(module, parameters, (x,), options)]


@pytest.mark.parametrize("name", [name for name, _ in modules()])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 6), (5, 6)])
def test_modules(name, training, shape):
    module = dict(modules())[name].double().train(training)
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    x = rand(BATCH, *shape)

    def call(parameters, x):
        return run_module(module, parameters, x)

    def loss(parameters, x):
        return sum(output.sin().sum() for output in call(parameters, x))

    def plain_gradients(parameters, x):
        leaves = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
        found = torch.autograd.grad(loss(leaves, x), list(leaves.values()), allow_unused=True)
        return dict(zip(leaves, found, strict=True))

    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            assert_close(vmap(call, (None, 0))(parameters, x), loop(call, (None, 0))(parameters, x))
            stacked = {name: torch.stack([p, p.cos(), -p]) for name, p in parameters.items()}
            want = loop(call, (0, None))(stacked, x[0])
            assert_close(vmap(call, (0, None))(stacked, x[0]), want)
    with torch.no_grad():
        got = vmap(grad(loss), (None, 0))(parameters, x)
    assert_close(got, loop(plain_gradients, (None, 0))(parameters, x))
    with torch.no_grad():
        forward = jvp(lambda x: loss(parameters, x), (x[0],), (x[0].cos(),))[1]
    want = oracle.grad(lambda x: loss(parameters, x))(x[0])
    assert_close(forward, (want * x[0].cos()).sum())
    second = hessian(lambda x: loss(parameters, x.reshape(shape)))(x[0].flatten())
    assert_close(second, second.T)


@pytest.mark.parametrize("grad_enabled", [True, False])
@pytest.mark.parametrize("name", ["attention", "encoder", "encoder, norm first"])
def test_masks_of_modules(name, grad_enabled):
    module = dict(modules())[name].double().eval()
    x = rand(BATCH, 2, 5, 6)
    padding = torch.zeros(BATCH, 2, 5, dtype=torch.bool)
    padding[:, 0, 3:] = True
    padding[1, 1, 4:] = True
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    is_attention = name == "attention"
    mask_name = "attn_mask" if is_attention else "src_mask"
    padding_name = "key_padding_mask" if is_attention else "src_key_padding_mask"

    def call(x, padding):
        return run_module(module, {}, x, **{padding_name: padding})[0]

    def call_with_causal(x):
        return run_module(module, {}, x, **{mask_name: causal})[0]

    with torch.set_grad_enabled(grad_enabled):
        assert_close(vmap(call)(x, padding), loop(call)(x, padding))
        assert_close(vmap(call, (0, None))(x, padding[0]), loop(call, (0, None))(x, padding[0]))
        assert_close(vmap(call_with_causal)(x), loop(call_with_causal)(x))
