"""Random operators that take a key: a sample draws what it would draw alone, whatever
``randomness=`` says."""

import pytest
import torch

from functorch_ext import grad, vmap
from test.oracle import loop
from test.releases import since

aten = torch.ops.aten
pytestmark = [
    since((2, 14), "operators that take keys run on GPUs alone"),
    pytest.mark.filterwarnings("error::functorch_ext.FallbackWarning"),
]


@pytest.fixture
def key():
    return torch.tensor([7, 0], dtype=torch.uint64)


@pytest.fixture
def keys(key):
    return aten._philox_key_split(key, 3)


def normal(key, *shape):
    return aten._philox_normal_(torch.empty(shape), key, 1.0, 2.0)


def uniform(key, *shape):
    return aten._philox_uniform(torch.empty(shape), key, -1.0, 2.0)


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("draw", [normal, uniform])
@pytest.mark.parametrize("shape", [(), (5,), (2, 5)], ids=str)
def test_a_key_for_each_sample(draw, shape, keys):
    assert_equal(vmap(lambda k: draw(k, *shape))(keys), loop(lambda k: draw(k, *shape))(keys))


@pytest.mark.parametrize("draw", [normal, uniform])
def test_samples_that_share_a_key_draw_the_same(draw, key):
    def function(x):
        return x + draw(key, 4)

    x = torch.randn(3, 4)
    assert_equal(vmap(function)(x), x + draw(key, 4))


@pytest.mark.parametrize("bdim", [0, 1, 2])
def test_written_into_a_batched_tensor(bdim, keys):
    x = torch.randn(3, 2, 4).movedim(0, bdim)
    expected = x.clone()
    for sample, key in zip(expected.unbind(bdim), keys, strict=True):
        aten._philox_normal_(sample, key)
    vmap(aten._philox_normal_, (bdim, 0), bdim)(x, keys)
    assert_equal(x, expected)


def test_written_by_a_shared_key(key):
    x = torch.randn(3, 4)
    vmap(aten._philox_uniform_, (0, None))(x, key)
    assert_equal(x, aten._philox_uniform_(torch.empty(4), key).expand(3, 4))


def test_a_key_for_each_row_of_a_sample(key):
    keys = aten._philox_key_split(key, 6).reshape(3, 2, 1, 2)
    assert_equal(vmap(lambda k: normal(k, 2, 4))(keys), loop(lambda k: normal(k, 2, 4))(keys))


def test_nested(key):
    keys = aten._philox_key_split(key, 6).reshape(3, 2, 2)
    expected = torch.stack([loop(lambda k: normal(k, 4))(each) for each in keys])
    assert_equal(vmap(vmap(lambda k: normal(k, 4)))(keys), expected)
    # The inner vmap maps what the outer one doesn't.
    expected = torch.stack([torch.stack([normal(keys[0, 0], 4) * s for s in (1.0, 2.0)])] * 3)
    scales = torch.tensor([1.0, 2.0]).expand(3, 2)
    actual = vmap(lambda s: vmap(lambda s: normal(keys[0, 0], 4) * s)(s))(scales)
    assert_equal(actual, expected)


@pytest.mark.parametrize("in_dim", [0, 1])
def test_keys_of_keys(in_dim, keys):
    keys = keys.movedim(0, in_dim)
    assert_equal(
        vmap(lambda k: aten._philox_key_split(k, 4), in_dim)(keys),
        loop(lambda k: aten._philox_key_split(k, 4))(keys.movedim(in_dim, 0)),
    )
    assert_equal(
        vmap(lambda k: aten._philox_key_fold_in(k, 4), in_dim)(keys),
        loop(lambda k: aten._philox_key_fold_in(k, 4))(keys.movedim(in_dim, 0)),
    )


@since((2, 15), "no integers are drawn by keys")
def test_integers(keys):
    def draw(key):
        return aten._philox_randint_(torch.empty(4, dtype=torch.int64), key, 0, 1000)

    assert_equal(vmap(draw)(keys), loop(draw)(keys))
    assert_equal(
        vmap(lambda k: aten._philox_randint(torch.zeros(4, dtype=torch.int32), k, 0, 9))(keys),
        loop(lambda k: aten._philox_randint(torch.zeros(4, dtype=torch.int32), k, 0, 9))(keys),
    )


def test_gradients_of_what_was_drawn(keys):
    def loss(scale, key):
        return (scale * normal(key, 4)).square().sum()

    scales = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(
        vmap(grad(loss))(scales, keys),
        loop(lambda s, k: 2 * s * normal(k, 4).square().sum())(scales, keys),
    )


def test_no_samples(keys):
    assert vmap(lambda k: normal(k, 4))(keys[:0]).shape == (0, 4)
