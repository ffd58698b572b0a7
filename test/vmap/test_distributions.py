"""torch.distributions inside vmap: what each draws, and its functions, as in a loop."""

import pytest
import torch

from functorch_ext import grad, vmap
from test.oracle import assert_close, loop
from test.vmap.distribution_checks import CHECKS, applies, from_one_state
from test.vmap.distributions import CASES, parameters_of

EACH = pytest.mark.parametrize("name", CASES)

# Some draw in a loop under "same", which warns; PyTorch's Wishart warns of every draw.
pytestmark = [
    pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning"),
    pytest.mark.filterwarnings("ignore:Singular sample detected"),
]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("check", CHECKS)
@EACH
def test_as_in_a_loop(name, check):
    if applies(CHECKS[check], name):
        CHECKS[check](name, vmap, grad)


@EACH
def test_error_is_the_default(name):
    with pytest.raises(RuntimeError, match="randomness='error'"):
        vmap(lambda *p: CASES[name].make(*p).sample())(*parameters_of(name))


@EACH
def test_different_draws_follow_the_parameters_of_each_sample(name):
    parameters = parameters_of(name)
    make = CASES[name].make
    try:
        distributions = [make(*(p[i] for p in parameters)) for i in range(3)]
        moments = [(each.mean, each.variance) for each in distributions]
    except NotImplementedError:
        pytest.skip("PyTorch has no mean")
    if name == "VonMises":
        pytest.skip("its mean is that of angles")
    count = 2000
    drawn = vmap(lambda *p: make(*p).sample((count,)), randomness="different")(*parameters)
    for (mean, variance), draws in zip(moments, drawn, strict=True):
        error = (draws.double().mean(0) - mean).abs() / (variance / count).sqrt()
        # A distribution with heavy tails has no variance to speak of.
        assert ((error < 7) | ~variance.isfinite() | ~mean.isfinite()).all()


def test_draws_by_rejection_in_nested_vmaps():
    means, concentrations = torch.randn(2, 3, 4), torch.rand(2, 3, 4) + 0.1

    def draw(mean, concentration):
        return torch.distributions.VonMises(mean, concentration).sample((3,))

    nested = vmap(vmap(draw, randomness="same"), randomness="same")
    drawn = from_one_state(nested)(means, concentrations)
    assert_close(drawn, loop(loop(from_one_state(draw)))(means, concentrations), 1e-5)


def test_parameters_that_differ_in_nested_vmaps_draw_the_same():
    rates = torch.rand(2, 3, 4) + 0.5
    for inner, outer in (("same", "same"), ("same", "different"), ("different", "same")):
        drawn = vmap(vmap(torch.poisson, randomness=inner), randomness=outer)(rates * 0 + 50)
        rows = drawn.flatten(1) if inner == "same" else drawn.transpose(0, 1).flatten(1)
        assert drawn.shape == (2, 3, 4)
        if inner == "same":
            assert torch.equal(drawn, drawn[:, :1].expand_as(drawn))
        if outer == "same":
            assert torch.equal(drawn, drawn[:1].expand_as(drawn))
        assert rows.unique().numel() > 1


def test_a_trace_cannot_draw_the_same_with_other_parameters():
    from torch.fx.experimental.proxy_tensor import make_fx

    function = vmap(torch.poisson, randomness="same")
    with pytest.raises(RuntimeError, match="while it is traced"):
        make_fx(function)(torch.rand(3, 4))


@pytest.mark.parametrize("samples", [0, 1])
def test_same_of_few_samples(samples):
    drawn = vmap(torch.poisson, randomness="same")(torch.rand(samples, 4))
    assert drawn.shape == (samples, 4)
