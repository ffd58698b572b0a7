"""Every operator that PyTorch tags as random, under every randomness= of vmap."""

import math

import pytest
import torch

from functorch_ext import vmap
from test.oracle import assert_close, loop, rand
from test.vmap.random_operators import (
    CALLS,
    ELEMENTS,
    FACTORIES,
    IN_PLACE,
    NOT_CALLED,
    OF_SOME_RELEASES,
    QUIET,
    tagged,
)

BATCH = 32
EACH = pytest.mark.parametrize("name", CALLS)


def zeros(*shape):
    return torch.zeros(*shape, ELEMENTS, dtype=torch.float64)


def draw(name, randomness, in_dim=0):
    torch.manual_seed(1)
    x = zeros(BATCH).movedim(0, in_dim).contiguous()
    return vmap(CALLS[name].function, in_dim, randomness=randomness)(x)


def test_the_table_has_all_tagged_operators():
    assert tagged() <= CALLS.keys() | NOT_CALLED.keys() | OF_SOME_RELEASES
    assert (CALLS.keys() | NOT_CALLED.keys()) - tagged() <= OF_SOME_RELEASES
    assert not CALLS.keys() & NOT_CALLED.keys()


def assert_independent(samples, mean, deviation):
    """Six standard errors: by chance, one of a billion."""
    draws = samples.flatten(1).double()
    count = draws.numel()
    assert abs(draws.mean() - mean) < 6 * deviation / math.sqrt(count)
    assert abs(draws.std() / deviation - 1) < 6 * 2 / math.sqrt(count)
    correlations = torch.corrcoef(draws) - torch.eye(len(draws))
    assert correlations.abs().max() < 6 / math.sqrt(draws.shape[1])


@EACH
@pytest.mark.parametrize("in_dim", [0, 1])
def test_different(name, in_dim):
    samples = draw(name, "different", in_dim)
    expected = CALLS[name].function(zeros())
    assert samples.shape == (BATCH, *expected.shape) and samples.dtype == expected.dtype
    assert len(samples.flatten(1).unique(dim=0)) == BATCH
    if CALLS[name].mean is not None:
        assert_independent(samples, CALLS[name].mean, CALLS[name].deviation)


@EACH
def test_different_for_an_unbatched_argument(name):
    torch.manual_seed(1)
    shared = zeros()
    call = vmap(lambda x: CALLS[name].function(shared), randomness="different")
    if name in IN_PLACE:  # there is room for one draw alone
        with pytest.raises(RuntimeError, match="unbatched"):
            call(zeros(BATCH))
        return
    samples = call(zeros(BATCH))
    assert len(samples.flatten(1).unique(dim=0)) == BATCH
    if CALLS[name].mean is not None:
        assert_independent(samples, CALLS[name].mean, CALLS[name].deviation)


@EACH
def test_same(name):
    """One draw for all samples: that of a single sample after the same seed."""
    shared = zeros()
    torch.manual_seed(1)
    expected = CALLS[name].function(shared.clone())
    torch.manual_seed(1)
    samples = vmap(lambda x: CALLS[name].function(shared.clone()), randomness="same")(zeros(BATCH))
    assert samples.dtype == expected.dtype
    assert_close(samples, expected.expand(BATCH, *expected.shape))


# Where parameters may differ between the samples, each sample draws from one generator state.
IN_A_LOOP = pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")


@IN_A_LOOP
@EACH
def test_same_for_batched_arguments(name):
    samples = draw(name, "same")
    torch.manual_seed(1)
    expected = CALLS[name].function(zeros())
    assert_close(samples, expected.expand(BATCH, *expected.shape))


@EACH
def test_error(name):
    with pytest.raises(RuntimeError, match=f"aten::{name} under randomness='error'") as caught:
        draw(name, "error")
    assert "'same'" in str(caught.value) and "'different'" in str(caught.value)


@pytest.mark.parametrize("name", [name for name in CALLS if name not in FACTORIES])
def test_no_samples(name):
    torch.manual_seed(1)
    expected = CALLS[name].function(zeros())
    samples = vmap(CALLS[name].function, randomness="different")(zeros(0))
    assert samples.shape == (0, *expected.shape)


@IN_A_LOOP
@EACH
@pytest.mark.parametrize("outer", ["same", "different"])
@pytest.mark.parametrize("inner", ["same", "different"])
def test_nested(name, outer, inner):
    """The same along each vmap that asks for it, different along the others."""
    torch.manual_seed(1)
    function = vmap(CALLS[name].function, randomness=inner)
    samples = vmap(function, randomness=outer)(zeros(3, 4)).flatten(2)
    along_outer = len(samples[:, 0].unique(dim=0))
    along_inner = len(samples[0].unique(dim=0))
    assert along_outer == (1 if outer == "same" else 3)
    assert along_inner == (1 if inner == "same" else 4)
    total = len(samples.flatten(0, 1).unique(dim=0))
    assert total == along_outer * along_inner


@EACH
def test_the_seed_fixes_the_draw(name):
    assert torch.equal(draw(name, "different"), draw(name, "different"))


@pytest.mark.parametrize("name", QUIET)
@pytest.mark.parametrize("randomness", ["error", "same", "different"])
def test_nothing_is_drawn(name, randomness):
    """By evaluation mode or a dropout of 0: no randomness= is needed."""
    x = rand(3, ELEMENTS)
    assert_close(vmap(QUIET[name], randomness=randomness)(x), loop(QUIET[name])(x))
