"""randomness= of vmap: an error that names the operator, one draw for all, or one draw each."""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import grad, jacrev, vmap
from test.oracle import assert_close, rand

BATCH = 64


def constant(x, value):
    """Parameters that are the same for all samples."""
    return torch.full((5,), value, dtype=x.dtype)


RANDOM = {
    # name: (function of one sample with 5 elements, the operator that the error has to name)
    "rand": (lambda x: torch.rand(5), "rand"),
    "randn": (lambda x: torch.randn(5, dtype=torch.float64), "randn"),
    "randint": (lambda x: torch.randint(1000, (5,)), "randint"),
    "randint of two bounds": (lambda x: torch.randint(10, 1000, (5,)), "randint"),
    "randperm": (lambda x: torch.randperm(50), "randperm"),
    "normal of a shape": (lambda x: torch.normal(0.0, 1.0, (5,)), "normal"),
    "rand_like": (torch.rand_like, "rand_like"),
    "randn_like": (torch.randn_like, "randn_like"),
    "randint_like": (lambda x: torch.randint_like(x, 1000), "randint_like"),
    "bernoulli": (lambda x: torch.bernoulli(constant(x, 0.5)), "bernoulli"),
    "bernoulli of a number": (lambda x: torch.bernoulli(x, 0.5), "bernoulli"),
    "normal": (lambda x: torch.normal(constant(x, 0), constant(x, 1)), "normal"),
    "normal of a tensor": (lambda x: torch.normal(constant(x, 0), 1.0), "normal"),
    "normal of a number": (lambda x: torch.normal(0.0, constant(x, 1)), "normal"),
    "poisson": (lambda x: torch.poisson(constant(x, 50)), "poisson"),
    "multinomial": (lambda x: torch.multinomial(constant(x, 0.2), 5), "multinomial"),
    "multinomial replacement": (
        lambda x: torch.multinomial(constant(x, 0.2), 20, replacement=True),
        "multinomial",
    ),
    "dropout": (lambda x: F.dropout(constant(x, 1)), "dropout|bernoulli"),
    "alpha_dropout": (
        lambda x: F.alpha_dropout(constant(x, 1), training=True),
        "dropout|bernoulli",
    ),
    "feature_dropout": (lambda x: F.dropout1d(constant(x, 1)[:, None]), "dropout|bernoulli"),
    "rrelu": (lambda x: F.rrelu(constant(x, -1), training=True), "rrelu"),
    "normal_": (lambda x: x.clone().normal_(), "normal_"),
    "uniform_": (lambda x: x.clone().uniform_(), "uniform_"),
    "bernoulli_": (lambda x: x.clone().bernoulli_(0.5), "bernoulli_"),
    "bernoulli_ of a tensor": (lambda x: x.clone().bernoulli_(constant(x, 0.5)), "bernoulli_"),
    "exponential_": (lambda x: x.clone().exponential_(), "exponential_"),
    "geometric_": (lambda x: x.clone().geometric_(0.01), "geometric_"),
    "cauchy_": (lambda x: x.clone().cauchy_(), "cauchy_"),
    "log_normal_": (lambda x: x.clone().log_normal_(), "log_normal_"),
    "random_": (lambda x: x.clone().random_(1000), "random_"),
    "random_ of two bounds": (lambda x: x.clone().random_(10, 1000), "random_"),
}
EACH = pytest.mark.parametrize("name", RANDOM)
IN_DIM = pytest.mark.parametrize("in_dim", [0, 1])


def draw(name, randomness, in_dim=0):
    shape = (BATCH, 5) if in_dim == 0 else (5, BATCH)
    torch.manual_seed(1)
    return vmap(RANDOM[name][0], in_dim, randomness=randomness)(rand(*shape))


@EACH
def test_error_names_the_operator(name):
    with pytest.raises(RuntimeError, match=RANDOM[name][1]) as caught:
        draw(name, "error")
    message = str(caught.value)
    assert "randomness" in message and "'same'" in message and "'different'" in message


@IN_DIM
@EACH
def test_same(name, in_dim):
    samples = draw(name, "same", in_dim)
    assert samples.shape == (BATCH, *RANDOM[name][0](rand(5)).shape)
    assert samples.dtype == RANDOM[name][0](rand(5)).dtype
    assert torch.equal(samples, samples[:1].expand_as(samples))


@IN_DIM
@EACH
def test_different(name, in_dim):
    samples = draw(name, "different", in_dim)
    assert samples.shape == (BATCH, *RANDOM[name][0](rand(5)).shape)
    assert samples.dtype == RANDOM[name][0](rand(5)).dtype
    # 64 draws of the coarsest one (5 bits) leave at least 16 distinct ones, but for a chance of 1e-5
    assert len(samples.flatten(1).unique(dim=0)) >= (2 if "feature" in name else 16)


@EACH
def test_the_seed_fixes_the_draw(name):
    for randomness in ("same", "different"):
        assert torch.equal(draw(name, randomness), draw(name, randomness))


FACTORIES = ["rand", "randn", "randint", "randperm", "rand_like", "randn_like", "dropout"]


@pytest.mark.parametrize("name", FACTORIES)
def test_same_is_the_draw_of_one_sample(name):
    samples = draw(name, "same")
    torch.manual_seed(1)
    rand(BATCH, 5)
    assert torch.equal(samples[0], RANDOM[name][0](torch.zeros(5).double()))


def test_bernoulli_follows_the_probabilities_of_each_sample():
    p = torch.linspace(0, 1, 3).expand(2000, 3).T.contiguous()
    means = vmap(torch.bernoulli, randomness="different")(p).mean(-1)
    assert means[0] == 0 and means[2] == 1 and 0.4 < means[1] < 0.6


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_normal_is_a_constant_to_derivatives_as_without_vmap(randomness):
    draw = vmap(lambda m, d: torch.normal(m, d), randomness=randomness)
    x = torch.rand(3) + 1
    for by in (0, 1):
        gradient = grad(lambda m, d: draw(m, d).sum(), argnums=by)(x, x)
        assert torch.equal(gradient, torch.zeros(3))


def test_normal_follows_the_moments_of_each_sample():
    mean, deviation = torch.tensor([-100.0, 0.0, 100.0]), torch.tensor([1.0, 0.1, 0.01])
    draws = vmap(lambda m, d: torch.normal(m.expand(2000), d.expand(2000)), randomness="different")(
        mean, deviation
    )
    assert (draws.mean(1) - mean).abs().max() < 0.2
    assert torch.allclose(draws.std(1), deviation, rtol=0.1)


BATCHED_PARAMETERS = {
    "bernoulli": lambda x: torch.bernoulli(x * 0 + 0.5),
    "normal": lambda x: torch.normal(x * 0, x * 0 + 1),
    "poisson": lambda x: torch.poisson(x * 0 + 50),
    "multinomial": lambda x: torch.multinomial(x * 0 + 0.2, 20, replacement=True),
    "bernoulli_": lambda x: x.clone().bernoulli_(x * 0 + 0.5),
}


@pytest.mark.parametrize("name", BATCHED_PARAMETERS)
def test_same_with_batched_parameters_is_right_or_refused(name):
    """Equal parameters give equal draws; to refuse, as torch.func does, is the other choice."""
    try:
        samples = vmap(BATCHED_PARAMETERS[name], randomness="same")(rand(BATCH, 5))
    except RuntimeError as error:
        assert "same" in str(error) and name in str(error)
    else:
        assert torch.equal(samples, samples[:1].expand_as(samples))
        assert len(samples[0].unique()) > 1


def test_multinomial_follows_the_weights_of_each_sample():
    weights = torch.eye(4)
    draws = vmap(lambda w: torch.multinomial(w, 9, replacement=True), randomness="different")(
        weights
    )
    assert torch.equal(draws, torch.arange(4)[:, None].expand(4, 9))


def test_permutations_are_permutations():
    draws = vmap(lambda x: torch.randperm(7), randomness="different")(torch.zeros(BATCH))
    assert torch.equal(draws.sort(-1).values, torch.arange(7).expand(BATCH, 7))


def test_different_draws_for_an_unbatched_input():
    shared = torch.zeros(5)
    for function in (torch.rand_like, torch.randn_like, lambda x: torch.bernoulli(x + 0.5)):
        samples = vmap(lambda x, f=function: f(shared), randomness="different")(torch.zeros(BATCH))
        assert len(samples.unique(dim=0)) >= 16


def test_different_draws_do_not_fit_into_an_unbatched_tensor():
    shared = torch.zeros(5)
    with pytest.raises(RuntimeError, match="unbatched|not batched|not vmapped|in-place|inplace"):
        vmap(lambda x: shared.normal_(), randomness="different")(torch.zeros(3))
    assert torch.equal(shared, torch.zeros(5))
    vmap(lambda x: shared.normal_() + x, randomness="same")(torch.zeros(3))
    assert shared.unique().numel() == 5


def test_nested():
    x = torch.zeros(3, 4, 5)

    def draws(outer, inner):
        return vmap(vmap(torch.randn_like, randomness=inner), randomness=outer)(x)

    assert draws("different", "different").unique().numel() == 60
    assert draws("same", "same").unique().numel() == 5
    assert draws("different", "same").unique().numel() == 15
    assert draws("same", "different").unique().numel() == 20
    with pytest.raises(RuntimeError, match="randn_like"):
        draws("different", "error")
    with pytest.raises(RuntimeError, match="randn_like"):
        draws("error", "different")


def test_dropout_keeps_its_mask_in_the_backward_pass():
    x = rand(BATCH, 5)

    def function(x):
        y = F.dropout(x, 0.5)
        return y.sum(), y

    for randomness, distinct in (("same", 1), ("different", 16)):
        gradients, y = vmap(grad(function, has_aux=True), randomness=randomness)(x)
        assert_close(gradients, torch.where(y == 0, 0.0, 2.0).double())
        assert_close(y, gradients * x)
        found = len(gradients.unique(dim=0))
        assert found == 1 if distinct == 1 else found >= distinct


def test_dropout_in_evaluation_mode_is_no_random_operator():
    x = rand(3, 5)
    assert_close(vmap(lambda x: F.dropout(x, training=False))(x), x)


def test_randomness_over_the_basis_of_a_jacobian():
    jacobian = jacrev(lambda x: F.dropout(x, 0.5))(torch.ones(8))
    assert set(jacobian.diagonal().tolist()) <= {0.0, 2.0}
    assert torch.equal(jacobian, jacobian.diagonal().diag())


def test_a_generator():
    generator = torch.Generator()
    for randomness in ("same", "different"):
        draws = []
        for _ in range(2):
            generator.manual_seed(3)
            mapped = vmap(lambda x: x.clone().normal_(generator=generator), randomness=randomness)
            draws.append(mapped(torch.zeros(3, 2)))
        assert torch.equal(*draws)
        assert len(draws[0].unique(dim=0)) == (1 if randomness == "same" else 3)


def test_random_operators_work_again_after_vmap():
    with pytest.raises(RuntimeError):
        vmap(torch.rand_like)(torch.zeros(3))
    assert torch.rand(3).unique().numel() == 3
    assert F.dropout(torch.ones(5)).shape == (5,)


def test_chunks_draw_anew():
    samples = vmap(torch.rand_like, randomness="different", chunk_size=2)(torch.zeros(6))
    assert samples.unique().numel() == 6
