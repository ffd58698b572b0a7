"""flex_attention and create_block_mask inside transforms: what attention written out computes."""

import math
import warnings

import pytest
import torch
from torch.nn.attention.flex_attention import (
    AuxOutput,
    AuxRequest,
    create_block_mask,
    flex_attention,
    noop_mask,
)

import functorch_ext as ft
from test import oracle

LENGTH = 5


@pytest.fixture(autouse=True)
def _quiet():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it would be faster compiled
        yield


def causal(b, h, query, key):
    return query >= key


def shorter_than(count):
    return lambda b, h, query, key: (query >= key) & (key < count)


def block_mask(mask):
    return create_block_mask(mask, None, None, LENGTH, LENGTH, device="cpu")


def expected(query, key, value, bias=None, count=LENGTH):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    scores = scores if bias is None else scores + bias
    places = torch.arange(LENGTH)
    mask = (places[:, None] >= places) & (places < count)
    return scores.masked_fill(~mask, -math.inf).softmax(-1) @ value


def heads(*batches):
    return oracle.rand(*batches, 2, 3, LENGTH, 4)


@pytest.mark.parametrize("dims", [(0, 0, 0), (None, 0, 0), (0, None, None), (1, 0, 2)], ids=str)
@pytest.mark.parametrize("is_made_inside", [False, True])
def test_vmap(dims, is_made_inside):
    """Queries, keys and values differ between samples or not."""
    outside = block_mask(causal)

    def attention(query, key, value):
        mask = block_mask(causal) if is_made_inside else outside
        return flex_attention(query, key, value, block_mask=mask)

    given = [heads() if dim is None else heads(4).movedim(0, dim) for dim in dims]
    oracle.assert_close(ft.vmap(attention, dims)(*given), oracle.loop(expected, dims)(*given))


def test_nested_vmaps():
    """Both batches are of the query; the keys have one of them."""
    mask = block_mask(causal)
    attention = lambda query, key: flex_attention(query, key, key, block_mask=mask)
    query, key = heads(4, 3), heads(3)
    oracle.assert_close(
        ft.vmap(ft.vmap(attention), (0, None))(query, key),
        oracle.loop(oracle.loop(lambda query, key: expected(query, key, key)), (0, None))(
            query, key
        ),
    )


def test_mask_of_a_batched_tensor():
    """Each sample masks other keys."""

    def attention(query, count):
        return flex_attention(query, query, query, block_mask=block_mask(shorter_than(count)))

    query, counts = heads(4), torch.tensor([1, 3, 5, 4])
    oracle.assert_close(
        ft.vmap(attention)(query, counts),
        oracle.loop(lambda query, count: expected(query, query, query, count=count))(query, counts),
    )


def test_rows_that_attend_to_nothing():
    """They are zeros, with zero derivatives, as PyTorch has it."""
    mask = block_mask(shorter_than(0))
    attention = lambda x: flex_attention(x, x, x, block_mask=mask)
    query = heads(2)
    oracle.assert_close(ft.vmap(attention)(query), torch.zeros_like(query))
    gradient = ft.grad(lambda x: attention(x).sum())(query[0])
    oracle.assert_close(gradient, torch.zeros_like(query[0]))


def biased(bias, query, key):
    mask = block_mask(causal)
    changed = lambda score, b, h, query, key: score + bias[query, key]
    return flex_attention(query, key, key, score_mod=changed, block_mask=mask)


def biased_expected(bias, query, key):
    return expected(query, key, key, bias)


TRANSFORMS = {
    "grad": (
        lambda f: ft.grad(lambda *args: f(*args).sin().sum()),
        lambda f: oracle.grad(lambda *args: f(*args).sin().sum()),
    ),
    "jvp": (
        lambda f: lambda bias, q, k: ft.jvp(lambda q: f(bias, q, k), (q,), (k,))[1],
        lambda f: lambda bias, q, k: oracle.jvp(lambda q: f(bias, q, k), q, k)[1],
    ),
    "gradient by the query": (
        lambda f: ft.grad(lambda *args: f(*args).sin().sum(), 1),
        lambda f: oracle.grad(lambda *args: f(*args).sin().sum(), 1),
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("dims", [(0, 0, 0), (0, None, None), (None, 0, 0)], ids=str)
def test_derivatives(transform, dims):
    """A score_mod closes over what differs between samples and is differentiated."""
    ours, theirs = TRANSFORMS[transform]
    bias = oracle.rand(LENGTH, LENGTH) if dims[0] is None else oracle.rand(3, LENGTH, LENGTH)
    query, key = (heads() if dim is None else heads(3) for dim in dims[1:])
    oracle.assert_close(
        ft.vmap(ours(biased), dims)(bias, query, key),
        oracle.loop(theirs(biased_expected), dims)(bias, query, key),
    )


def test_hessian():
    """Second derivatives, which PyTorch has none of."""
    query = oracle.rand(1, 1, LENGTH, 2)
    mask = block_mask(causal)
    oracle.assert_close(
        ft.hessian(lambda x: flex_attention(x, x, x, block_mask=mask).sin().sum())(query),
        oracle.hessian(lambda x: expected(x, x, x).sin().sum())(query),
    )


def test_what_plain_pytorch_computes():
    """The other results, grouped heads and dtypes are those of the plain operator."""
    query, key = oracle.rand(2, 4, LENGTH, 4), oracle.rand(2, 2, LENGTH, 4)
    mask = block_mask(shorter_than(3))

    def attention(query, key):
        return flex_attention(
            query, key, key, block_mask=mask, enable_gqa=True, return_aux=AuxRequest(lse=True)
        )

    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        q, k = query.to(dtype), key.to(dtype)
        plain, aux = attention(q, k)
        found, found_aux = ft.vmap(attention, out_dims=(0, AuxOutput(0, None)))(q[None], k[None])
        tolerance = 1e-9 if dtype == torch.float64 else 1e-2
        for one, other in ((found, plain), (found_aux.lse, aux.lse)):
            oracle.assert_close(one[0], other, tolerance)


class Attention(torch.nn.Module):
    """A layer with one head."""

    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(4, 12, dtype=torch.float64)
        self.mask = block_mask(noop_mask)

    def forward(self, x):
        query, key, value = self.project(x)[None, None].chunk(3, -1)
        return flex_attention(query, key, value, block_mask=self.mask)[0, 0]


def test_gradients_of_each_sample():
    """Of a small model."""
    model, x = Attention(), oracle.rand(6, LENGTH, 4)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, x):
        return ft.functional_call(model, parameters, (x,)).square().sum()

    found = ft.vmap(ft.grad(loss), (None, 0))(parameters, x)

    def plain(weight, bias, x):
        query, key, value = torch.nn.functional.linear(x, weight, bias).chunk(3, -1)
        return ((query @ key.T / 2).softmax(-1) @ value).square().sum()

    given = (parameters["project.weight"], parameters["project.bias"], x)
    for argnum, name in enumerate(parameters):
        wanted = oracle.loop(oracle.grad(plain, argnum), (None, None, 0))(*given)
        oracle.assert_close(found[name], wanted)
