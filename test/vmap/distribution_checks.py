"""What to ask of a distribution inside vmap, with any package's vmap and grad.

Each check takes the name of a case and the two transforms, and raises AssertionError where the
answer isn't that of a loop.
"""

import torch
from torch import distributions as D

from test.oracle import assert_close, loop
from test.vmap.distributions import CASES, parameters_of

SEED = 3


def from_one_state(function):
    """The function, with the generator in the same state at each call."""

    def seeded(*args):
        torch.manual_seed(SEED)
        return function(*args)

    return seeded


def by_autograd(function):
    """The gradients of a sample by all parameters, by plain autograd."""

    def gradients(*parameters):
        leaves = [x.clone().requires_grad_() for x in parameters]
        value = function(*leaves)
        return torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)

    return gradients


def each_draws_anew(name, vmap, grad):
    shared = CASES[name].make(*(p[0] for p in parameters_of(name)))
    equal = [p[:1].expand_as(p) for p in parameters_of(name)]
    draws = (
        vmap(lambda *p: CASES[name].make(*p).sample((50,)), randomness="different")(*equal),
        vmap(lambda x: shared.sample((50,)), randomness="different")(torch.ones(3)),
    )
    for drawn in draws:
        assert drawn.shape == (3, 50, *shared.batch_shape, *shared.event_shape)
        assert drawn.dtype == shared.sample().dtype
        assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])


# One operator draws from numbers that another drew: each starts from one state of the generator.
SEVERAL_DRAWS = ("LKJCholesky", "NegativeBinomial", "Wishart")


def all_draw_the_same(name, vmap, grad):
    """As a loop whose passes start from one state of the generator."""
    parameters = parameters_of(name)

    def draw(*p):
        return CASES[name].make(*p).sample((5,))

    equal = [p[:1].expand_as(p).clone() for p in parameters]
    drawn = vmap(draw, randomness="same")(*equal)
    assert_close(drawn, drawn[:1].expand_as(drawn))
    if name in SEVERAL_DRAWS:
        return
    drawn = from_one_state(vmap(draw, randomness="same"))(*parameters)
    assert_close(drawn, loop(from_one_state(draw))(*parameters))


def gradients_of_draws(name, vmap, grad):
    parameters = parameters_of(name)
    every = tuple(range(len(parameters)))

    def function(*p):
        return CASES[name].make(*p).rsample((2,)).sin().sum()

    def total(*p):
        return vmap(function, randomness="different")(*p).sum()

    each = from_one_state(vmap(grad(function, argnums=every), randomness="different"))(*parameters)
    assert_close(each, from_one_state(grad(total, argnums=every))(*parameters))
    each = from_one_state(vmap(grad(function, argnums=every), randomness="same"))(*parameters)
    assert_close(each, loop(from_one_state(by_autograd(function)))(*parameters))


def _functions_of(distribution, value):
    """What can be asked about a distribution."""
    third = torch.full(distribution.batch_shape, 1 / 3, dtype=torch.float64)
    return [
        lambda d: d.log_prob(value),
        lambda d: d.entropy(),
        lambda d: d.cdf(value),
        lambda d: d.icdf(third),
        lambda d: d.mean,
        lambda d: d.variance,
        lambda d: d.mode,
        lambda d: d.support.check(value),
        lambda d: d.enumerate_support(),
        lambda d: d.expand((2, *d.batch_shape)).log_prob(value),
        lambda d: D.kl_divergence(d, distribution),
    ]


def functions_and_their_gradients(name, vmap, grad):
    parameters = parameters_of(name)
    every = tuple(range(len(parameters)))
    make = CASES[name].make
    first = make(*(p[0] for p in parameters))
    for of in _functions_of(first, first.sample()):

        def function(*p, of=of):
            return of(make(*p))

        def total(*p, function=function):
            return function(*p).sum()

        try:
            expected = loop(function)(*parameters)
        except (
            NotImplementedError,
            ValueError,
            RuntimeError,
        ):  # not there, or not a value of each sample's
            continue
        assert_close(vmap(function)(*parameters), expected)
        try:
            expected = loop(by_autograd(total))(*parameters)
        except (NotImplementedError, RuntimeError):  # no derivative
            continue
        assert_close(vmap(grad(total, argnums=every))(*parameters), expected)


CHECKS = {
    'draws, `"different"`': each_draws_anew,
    'draws, `"same"`': all_draw_the_same,
    "gradients of draws": gradients_of_draws,
    "functions": functions_and_their_gradients,
}


def applies(check, name):
    if check is not gradients_of_draws:
        return True
    # PyTorch's Wishart writes to a mask that its own gradient needs.
    return name != "Wishart" and CASES[name].make(*(p[0] for p in parameters_of(name))).has_rsample
