"""PyTorch never takes our tensors for its own."""

import copy
import io
import pickle

import pytest
import torch

import functorch_ext as F
from test.oracle import assert_close, rand

X = rand(3, 2)
NUMBERS = torch.arange(3)
internals = torch._C._functorch


@pytest.mark.parametrize("values", [X, NUMBERS], ids=["vectors", "numbers"])
def test_functorch_sees_no_tensor_of_its_own(values):
    def look(x):
        assert not internals.is_batchedtensor(x)
        assert not internals.is_gradtrackingtensor(x)
        assert not internals.is_functionaltensor(x)
        assert not internals.is_functorch_wrapped_tensor(x)
        assert internals.maybe_get_bdim(x) == internals.maybe_get_level(x) == -1
        return x * 2

    assert_close(F.vmap(look)(values), values * 2)


def test_formulas_take_their_functional_form():
    def second(x):
        return F.jvp(F.grad(lambda y: torch.linalg.vector_norm(y).sin()), (x,), (x,))[1]

    expected = torch.stack([second(x) for x in X])
    assert_close(F.vmap(second)(X), expected)


def test_new():
    made = lambda x: x.new(2).copy_(x)
    assert_close(F.vmap(made)(X), X)
    assert_close(F.vmap(lambda x: x.new([1.0, 2.0]) * x)(X), torch.tensor([1.0, 2.0]).to(X) * X)
    assert F.vmap(lambda x: x.new() + x.new().sum())(X).shape == (3, 0)


def test_data_is_replaced():
    def replaced(x):
        y = x.clone()
        y.data = x * 2
        return y + x.data

    assert_close(F.vmap(replaced)(X), X * 3)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies(copied):
    assert_close(F.vmap(lambda x: copied(x) * 2)(X), X * 2)


@pytest.mark.parametrize(
    "save", [pickle.dumps, lambda x: torch.save(x, io.BytesIO())], ids=["pickle", "save"]
)
def test_saving_is_refused(save):
    with pytest.raises(RuntimeError, match="can't be pickled or saved"):
        F.vmap(save)(X)


def test_repr():
    seen = []
    F.vmap(lambda x: seen.append(repr(x)) or x)(X)
    assert "BatchedTensor(level=1, bdim=0" in seen[0]


DISTRIBUTIONS = {
    "Bernoulli": lambda p: torch.distributions.Bernoulli(p),
    "Beta": lambda p: torch.distributions.Beta(p + 1, p + 2),
    "Binomial": lambda p: torch.distributions.Binomial(10, p),
    "Categorical": lambda p: torch.distributions.Categorical(torch.stack([p, 1 - p])),
    "Cauchy": lambda p: torch.distributions.Cauchy(p, p + 1),
    "Chi2": lambda p: torch.distributions.Chi2(p + 1),
    "ContinuousBernoulli": lambda p: torch.distributions.ContinuousBernoulli(p),
    "Dirichlet": lambda p: torch.distributions.Dirichlet(torch.stack([p, 1 - p])),
    "Exponential": lambda p: torch.distributions.Exponential(p),
    "FisherSnedecor": lambda p: torch.distributions.FisherSnedecor(p + 1, p + 2),
    "Gamma": lambda p: torch.distributions.Gamma(p + 1, p + 1),
    "GeneralizedPareto": lambda p: torch.distributions.GeneralizedPareto(p, p + 1, p),
    "Geometric": lambda p: torch.distributions.Geometric(p),
    "Gumbel": lambda p: torch.distributions.Gumbel(p, p + 1),
    "HalfCauchy": lambda p: torch.distributions.HalfCauchy(p),
    "HalfNormal": lambda p: torch.distributions.HalfNormal(p),
    "InverseGamma": lambda p: torch.distributions.InverseGamma(p + 1, p + 1),
    "Kumaraswamy": lambda p: torch.distributions.Kumaraswamy(p + 1, p + 1),
    "LKJCholesky": lambda p: torch.distributions.LKJCholesky(3, p),
    "Laplace": lambda p: torch.distributions.Laplace(p, p + 1),
    "LogNormal": lambda p: torch.distributions.LogNormal(p, p + 1),
    "LogisticNormal": lambda p: torch.distributions.LogisticNormal(
        torch.stack([p, p]), torch.stack([p, p])
    ),
    "LowRankMultivariateNormal": lambda p: torch.distributions.LowRankMultivariateNormal(
        torch.stack([p, p]), torch.stack([p, p])[:, None], torch.stack([p, p])
    ),
    "Multinomial": lambda p: torch.distributions.Multinomial(5, torch.stack([p, 1 - p])),
    "MultivariateNormal": lambda p: torch.distributions.MultivariateNormal(
        torch.stack([p, p]), torch.eye(2).to(p) * (p + 1)
    ),
    "NegativeBinomial": lambda p: torch.distributions.NegativeBinomial(3, p),
    "Normal": lambda p: torch.distributions.Normal(p, p + 1),
    "OneHotCategorical": lambda p: torch.distributions.OneHotCategorical(torch.stack([p, 1 - p])),
    "Pareto": lambda p: torch.distributions.Pareto(p + 1, p + 1),
    "Poisson": lambda p: torch.distributions.Poisson(p * 5),
    "RelaxedBernoulli": lambda p: torch.distributions.RelaxedBernoulli(p + 1, p),
    "RelaxedOneHotCategorical": lambda p: torch.distributions.RelaxedOneHotCategorical(
        p + 1, torch.stack([p, 1 - p])
    ),
    "StudentT": lambda p: torch.distributions.StudentT(p + 2),
    "Uniform": lambda p: torch.distributions.Uniform(p, p + 1),
    "Weibull": lambda p: torch.distributions.Weibull(p + 1, p + 1),
}


@pytest.mark.parametrize("make", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_distributions_sample(make):
    p = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    expected = make(p[0]).sample((4,))
    sample = lambda p: make(p).sample((4,))
    drawn = F.vmap(sample, randomness="different")(p)
    assert drawn.shape == (3, *expected.shape)
    assert drawn.dtype == expected.dtype
    assert torch.isfinite(drawn).all()
    assert not torch.equal(drawn[0], drawn[1]) or make is DISTRIBUTIONS["Geometric"]
