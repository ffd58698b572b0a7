"""Generators that a program passes, forks or winds back, inside vmap."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from functorch_ext import grad, vmap
from test.oracle import assert_close, loop, rand
from test.releases import since

WITH_GENERATOR = {
    "rand": lambda x, g: torch.rand(5, generator=g),
    "randn": lambda x, g: torch.randn(5, generator=g),
    "randint": lambda x, g: torch.randint(1000, (5,), generator=g),
    "randperm": lambda x, g: torch.randperm(50, generator=g),
    "normal of a shape": lambda x, g: torch.normal(0.0, 1.0, (5,), generator=g),
    "normal": lambda x, g: torch.normal(x, x.exp(), generator=g),
    "normal of a mean": lambda x, g: torch.normal(x, 2.0, generator=g),
    "normal of a deviation": lambda x, g: torch.normal(2.0, x.exp(), generator=g),
    "rand_like": lambda x, g: torch.rand_like(x, generator=g),
    "randn_like": lambda x, g: torch.randn_like(x, generator=g),
    "bernoulli": lambda x, g: torch.bernoulli(x.sigmoid(), generator=g),
    "poisson": lambda x, g: torch.poisson(x.exp() * 10, generator=g),
    "binomial": lambda x, g: torch.binomial(x * 0 + 20, x.sigmoid(), generator=g),
    "multinomial": lambda x, g: torch.multinomial(x.exp(), 5, generator=g),
    "multinomial replacement": lambda x, g: torch.multinomial(x.exp(), 9, True, generator=g),
    "normal_": lambda x, g: torch.empty_like(x).normal_(generator=g),
    "uniform_ of a new tensor": lambda x, g: torch.empty(5).uniform_(generator=g),
    "exponential_": lambda x, g: x.clone().exponential_(generator=g),
    "random_": lambda x, g: x.clone().random_(1000, generator=g),
    "bernoulli_": lambda x, g: x.clone().bernoulli_(x.sigmoid(), generator=g),
    "init": lambda x, g: torch.nn.init.kaiming_uniform_(torch.empty(5, 5), generator=g),
}
EACH = pytest.mark.parametrize("name", WITH_GENERATOR)

pytestmark = pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")


@EACH
def test_same_draws_from_the_generator_as_a_loop_that_winds_it_back(name):
    function, xs = WITH_GENERATOR[name], rand(3, 5)

    def anew(x):
        return function(x, torch.Generator().manual_seed(7))

    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(7)
    drawn = vmap(lambda x: function(x, generator), randomness="same")(xs)
    tolerance = 1e-6 if drawn.dtype == torch.float32 else 1e-9
    if name in ("bernoulli", "bernoulli_"):  # by one uniform draw for all samples
        assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    else:
        assert_close(drawn, loop(anew)(xs), tolerance)
    assert torch.equal(torch.get_rng_state(), state)


@EACH
def test_different_draws_from_the_generator_and_from_no_other(name):
    function, xs = WITH_GENERATOR[name], rand(1, 5).expand(64, 5)
    state = torch.get_rng_state()
    drawn = [
        vmap(lambda x: function(x, generator), randomness="different")(xs)
        for generator in (torch.Generator().manual_seed(7), torch.Generator().manual_seed(7))
    ]
    assert torch.equal(*drawn) and len(drawn[0].flatten(1).unique(dim=0)) > 1
    assert torch.equal(torch.get_rng_state(), state)


@EACH
def test_error_for_a_generator_too(name):
    generator = torch.Generator()
    with pytest.raises(RuntimeError, match="randomness='error'"):
        vmap(lambda x: WITH_GENERATOR[name](x, generator))(rand(3, 5))


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_fork_rng_gives_the_state_back(randomness):
    def function(x):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            drawn = torch.randn_like(x)
        return drawn, torch.randn_like(x)

    xs = rand(3, 4)
    torch.manual_seed(1)
    forked, after = vmap(function, randomness=randomness)(xs)
    torch.manual_seed(1)
    assert_close(after, vmap(torch.randn_like, randomness=randomness)(xs))
    torch.manual_seed(5)
    assert_close(forked, vmap(torch.randn_like, randomness=randomness)(xs))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("randomness", ["same", "different"])
def test_dropout_under_a_checkpoint_is_computed_again_with_the_same_mask(randomness, reentrant):
    def block(x):
        return F.dropout(x.sin(), 0.5).square() * x

    def loss(x, keep):
        y = block(x) if keep else checkpoint(block, x, use_reentrant=reentrant)
        return y.sum(), y

    xs = rand(4, 20)
    results = []
    for keep in (True, False):
        torch.manual_seed(2)
        per_sample = vmap(grad(lambda x: loss(x, keep), has_aux=True), randomness=randomness)  # noqa: B023
        results.append(per_sample(xs))
    assert_close(results[1], results[0])


@since((2, 13), "traces take no generators")
def test_a_draw_under_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    def function(mean, deviation):
        generator = torch.Generator().manual_seed(7)
        draw = vmap(lambda m, d: torch.normal(m, d, generator=generator), randomness="different")
        return draw(mean, deviation)

    mean, deviation = rand(3, 4), rand(3, 4).exp()
    with FakeTensorMode() as mode:
        fakes = mode.from_tensor(mean), mode.from_tensor(deviation)
        assert function(*fakes).shape == (3, 4)
    for tracing in ("real", "fake", "symbolic"):
        graph = make_fx(function, tracing_mode=tracing)(mean, deviation)
        assert graph(mean, deviation).shape == (3, 4)
