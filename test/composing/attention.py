"""Scaled dot product attention and its modules."""

import itertools

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from test.composing.rows import row, sample, total, uses

FEATURE = "Attention"
WAYS = (
    "grad", "jacrev", "jvp", "jacfwd", "grad(grad)", "jvp(grad)", "vmap", "vmap(grad)",
    "grad(vmap)", "jvp(vmap)", "vmap(jvp)", "vmap(jacrev)",
)  # fmt: skip
MASK = torch.ones(4, 5, dtype=torch.bool).tril(1)
BIAS = sample(4, 5, seed=4)


def attend(**options):
    def func(q, k, v):
        given = dict(options)
        if "attn_mask" in given and given["attn_mask"].is_floating_point():
            given["attn_mask"] = given["attn_mask"].to(q.dtype)
        return functional.scaled_dot_product_attention(q, k, v, **given)

    return func


def plain_of(func):
    """func with the kernel that is made of ordinary operators."""

    def plain(*args):
        with sdpa_kernel(SDPBackend.MATH):
            return func(*args)

    return plain


def by_hand(**options):
    return plain_of(attend(**options))


def qkv(dtype=torch.float64, heads=2, shared_heads=None):
    def make():
        k = sample(2, 1, shared_heads or heads, 5, 3, dtype=dtype, seed=1)
        return sample(2, 1, heads, 4, 3, dtype=dtype), k, k.cos()

    return make


KINDS = {
    "no mask": ({}, qkv()),
    "a Boolean mask": ({"attn_mask": MASK}, qkv()),
    "a mask of numbers": ({"attn_mask": BIAS}, qkv()),
    "is_causal": ({"is_causal": True}, qkv()),
    "scale": ({"scale": 0.3}, qkv()),
    "enable_gqa": ({"enable_gqa": True}, qkv(heads=4, shared_heads=2)),
    "enable_gqa, is_causal": (
        {"enable_gqa": True, "is_causal": True},
        qkv(heads=4, shared_heads=2),
    ),
}


def float32():
    return uses(
        FEATURE, "scaled_dot_product_attention, float32", attend(), qkv(torch.float32), WAYS,
        plain=by_hand(), tolerance=1e-4,
    )  # fmt: skip


def forced(kernel):
    def func(*args):
        with sdpa_kernel(kernel):
            return attend()(*args)

    return func


def over_each_argument():
    """Every choice of which of q, k and v are mapped, and a mapped mask."""
    rows = []
    for mapped in itertools.product((True, False), repeat=3):
        if any(mapped):
            dims = tuple(0 if each else None for each in mapped)
            names = ", ".join(n for n, each in zip("qkv", mapped) if each)

            def make(mapped=mapped):
                return tuple(x if each else x[0] for x, each in zip(qkv()(), mapped))

            rows += uses(
                FEATURE, f"scaled_dot_product_attention, only {names} mapped", attend(), make,
                ("vmap", "vmap(grad)", "grad(vmap)", "jvp(vmap)"), dims, plain=by_hand(),
            )  # fmt: skip
    for name, make_mask in {
        "a mapped Boolean mask": lambda: torch.stack([MASK, MASK.flip(0) | MASK]),
        "a mapped mask of numbers": lambda: sample(2, 4, 5, seed=9),
    }.items():

        def func(q, k, v, mask):
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

        def plain(*args, func=func):
            with sdpa_kernel(SDPBackend.MATH):
                return func(*args)

        for which, dims in {"": (0, 0, 0, 0), ", nothing else": (None, None, None, 0)}.items():

            def make(make_mask=make_mask, dims=dims):
                parts = (x if dim == 0 else x[0] for x, dim in zip(qkv()(), dims))
                return (*parts, make_mask())

            rows += uses(
                FEATURE, f"scaled_dot_product_attention, {name}{which}", func, make,
                ("grad", "vmap", "vmap(grad)", "grad(vmap)", "jvp(vmap)"), dims, plain=plain,
            )  # fmt: skip
    return rows


def attention():
    torch.manual_seed(0)
    return nn.MultiheadAttention(4, 2, batch_first=True).double()


def multihead(need_weights, evaluation=False, **call):
    module = attention().train(not evaluation)
    return lambda x, y: module(x, y, y, need_weights=need_weights, **call)[0]


def layer(kind, evaluation=False):
    torch.manual_seed(0)
    return kind(4, 2, 8, dropout=0.0, batch_first=True).double().train(not evaluation)


def per_sample(F):
    module = attention()

    def loss(parameters, x):
        return total(lambda x: F.functional_call(module, parameters, (x, x, x))[0])(x)

    return F.vmap(F.grad(loss), (None, 0))(dict(module.named_parameters()), sample(3, 2, 5, 4))


def per_sample_plain():
    from test.composing import reference

    with sdpa_kernel(SDPBackend.MATH):
        return per_sample(reference)


XY = (sample(2, 2, 5, 4), sample(2, 2, 6, 4, seed=1))
MODULES = {
    "MultiheadAttention": (multihead(False), XY),
    "MultiheadAttention, need_weights": (multihead(True), XY),
    "MultiheadAttention, evaluation": (multihead(False, evaluation=True), XY),
    "MultiheadAttention, a mask": (multihead(False, attn_mask=~torch.ones(5, 6).tril().bool()), XY),
    "TransformerEncoderLayer": (layer(nn.TransformerEncoderLayer), XY[:1]),
    "TransformerEncoderLayer, evaluation": (layer(nn.TransformerEncoderLayer, True), XY[:1]),
    "TransformerDecoderLayer": (layer(nn.TransformerDecoderLayer), XY),
}
ROWS = [
    *(each for name, (options, make) in KINDS.items()
      for each in uses(FEATURE, f"scaled_dot_product_attention, {name}", attend(**options), make,
                       WAYS, plain=by_hand(**options))),
    *float32(),
    *uses(FEATURE, "scaled_dot_product_attention, the flash kernel",
          forced(SDPBackend.FLASH_ATTENTION), qkv(), WAYS, plain=by_hand()),
    *uses(FEATURE, "scaled_dot_product_attention, the math kernel", forced(SDPBackend.MATH), qkv(),
          WAYS, plain=by_hand()),
    *over_each_argument(),
    *(each for name, (func, batch) in MODULES.items()
      for each in uses(FEATURE, name, func, batch, WAYS, plain=plain_of(func))),
    row(FEATURE, "MultiheadAttention", "per-sample gradients", per_sample, per_sample_plain),
]  # fmt: skip
