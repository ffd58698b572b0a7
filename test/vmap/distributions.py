"""Every distribution of torch.distributions, made of the parameters of a sample."""

from typing import NamedTuple

import torch
from torch import distributions as D

BATCH = 3


class Case(NamedTuple):
    """`make` takes one sample's parameters; `parameters` names their kinds, below."""

    make: object
    parameters: tuple


def real(n):
    return torch.randn(n, 4, dtype=torch.float64)


def positive(n):
    return torch.rand(n, 4, dtype=torch.float64) + 0.5


def above_two(n):
    return torch.rand(n, 4, dtype=torch.float64) + 2.5


def probability(n):
    return torch.rand(n, 4, dtype=torch.float64) * 0.8 + 0.1


def probabilities(n):
    return torch.softmax(torch.randn(n, 2, 4, dtype=torch.float64), -1)


def matrix(n):
    return torch.randn(n, 4, 2, dtype=torch.float64)


def triangle(n):
    x = torch.randn(n, 3, 3, dtype=torch.float64)
    return x.tril(-1) * 0.3 + torch.diag_embed(torch.rand(n, 3, dtype=torch.float64) + 0.5)


def covariance(n):
    x = torch.randn(n, 3, 3, dtype=torch.float64) * 0.3
    return x @ x.mT + torch.eye(3, dtype=torch.float64)


def vector(n):
    return torch.randn(n, 3, dtype=torch.float64)


def number(n):
    return torch.rand(n, dtype=torch.float64) + 0.5


def freedom(n):
    return torch.rand(n, dtype=torch.float64) + 5


def mixture(logits, mean, deviation):
    return D.MixtureSameFamily(D.Categorical(logits=logits), D.Normal(mean, deviation))


def flow(mean, deviation):
    transforms = [D.SigmoidTransform(), D.AffineTransform(1.0, 2.0)]
    return D.TransformedDistribution(D.Normal(mean, deviation), transforms)


CASES = {
    "Bernoulli": Case(D.Bernoulli, (probability,)),
    "Bernoulli of logits": Case(lambda x: D.Bernoulli(logits=x), (real,)),
    "Beta": Case(D.Beta, (above_two, above_two)),
    "Binomial": Case(lambda p: D.Binomial(5, p), (probability,)),
    "Binomial of logits": Case(lambda x: D.Binomial(5, logits=x), (real,)),
    "Categorical": Case(D.Categorical, (probabilities,)),
    "Categorical of logits": Case(lambda x: D.Categorical(logits=x), (real,)),
    "Cauchy": Case(D.Cauchy, (real, positive)),
    "Chi2": Case(D.Chi2, (positive,)),
    "ContinuousBernoulli": Case(D.ContinuousBernoulli, (probability,)),
    "Dirichlet": Case(D.Dirichlet, (above_two,)),
    "Exponential": Case(D.Exponential, (positive,)),
    "FisherSnedecor": Case(D.FisherSnedecor, (positive, above_two)),
    "Gamma": Case(D.Gamma, (positive, positive)),
    "GeneralizedPareto": Case(D.GeneralizedPareto, (real, positive, probability)),
    "Geometric": Case(D.Geometric, (probability,)),
    "Gumbel": Case(D.Gumbel, (real, positive)),
    "HalfCauchy": Case(D.HalfCauchy, (positive,)),
    "HalfNormal": Case(D.HalfNormal, (positive,)),
    "Independent": Case(lambda m, d: D.Independent(D.Normal(m, d), 1), (real, positive)),
    "InverseGamma": Case(D.InverseGamma, (above_two, positive)),
    "Kumaraswamy": Case(D.Kumaraswamy, (positive, positive)),
    "LKJCholesky": Case(lambda c: D.LKJCholesky(3, c), (number,)),
    "Laplace": Case(D.Laplace, (real, positive)),
    "LogNormal": Case(D.LogNormal, (real, positive)),
    "LogisticNormal": Case(D.LogisticNormal, (real, positive)),
    "LowRankMultivariateNormal": Case(D.LowRankMultivariateNormal, (real, matrix, positive)),
    "MixtureSameFamily": Case(mixture, (real, real, positive)),
    "Multinomial": Case(lambda p: D.Multinomial(5, p), (probabilities,)),
    "Multinomial of logits": Case(lambda x: D.Multinomial(5, logits=x), (real,)),
    "MultivariateNormal": Case(D.MultivariateNormal, (vector, covariance)),
    "MultivariateNormal of a precision": Case(
        lambda m, p: D.MultivariateNormal(m, precision_matrix=p), (vector, covariance)
    ),
    "MultivariateNormal of a factor": Case(
        lambda m, f: D.MultivariateNormal(m, scale_tril=f), (vector, triangle)
    ),
    "NegativeBinomial": Case(D.NegativeBinomial, (positive, probability)),
    "Normal": Case(D.Normal, (real, positive)),
    "OneHotCategorical": Case(D.OneHotCategorical, (probabilities,)),
    "OneHotCategoricalStraightThrough": Case(D.OneHotCategoricalStraightThrough, (probabilities,)),
    "Pareto": Case(D.Pareto, (positive, above_two)),
    "Poisson": Case(D.Poisson, (positive,)),
    "RelaxedBernoulli": Case(D.RelaxedBernoulli, (number, probability)),
    "RelaxedOneHotCategorical": Case(D.RelaxedOneHotCategorical, (number, probabilities)),
    "StudentT": Case(D.StudentT, (above_two, real, positive)),
    "TransformedDistribution": Case(flow, (real, positive)),
    "Uniform": Case(lambda low, width: D.Uniform(low, low + width), (real, positive)),
    "VonMises": Case(D.VonMises, (real, positive)),
    "Weibull": Case(D.Weibull, (positive, positive)),
    "Wishart": Case(D.Wishart, (freedom, covariance)),
}


def parameters_of(name, n=BATCH):
    """The parameters of n samples, each with others."""
    return tuple(make(n) for make in CASES[name].parameters)
