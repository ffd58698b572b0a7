"""``debug.nans``: the first operator, the samples, the line."""

import torch

from functorch_ext import grad, jvp, vmap
from functorch_ext.debug import nans
from test.oracle import rand


def test_finite_numbers_are_nothing_to_find():
    found = nans(vmap(torch.sin))(rand(8, 3))
    assert not found and str(found) == "all numbers that this thread computed are finite"


def test_the_first_operator_and_its_samples():
    def f(x):
        y = x + 1
        z = y.log()
        return (z * 2).sum()

    x = torch.ones(8, 3)
    x[2, 1] = x[5, 0] = -3
    found = nans(vmap(f))(x)
    (first,) = found.first
    assert (first.kind, first.phase, first.operator) == ("NaN", "forward", "aten::log")
    assert first.samples == ((2,), (5,))
    assert first.place.code == "y.log()"
    assert first.transforms == ("vmap(level 1, 8 samples)",)
    assert not first.from_arguments
    assert "samples 2, 5" in str(found)


def test_samples_of_nested_vmaps_over_any_dims():
    x = torch.ones(3, 4, 5)  # inner samples, elements, outer samples
    x[1, 2, 4] = -1
    found = nans(vmap(vmap(torch.log), in_dims=2))(x)
    assert found.first[0].samples == ((4, 1),)


def test_infinity_and_nan_are_told_apart():
    def f(x):
        masked = x.masked_fill(x > 0, -torch.inf)
        return masked - masked

    kinds = [(each.kind, each.operator) for each in nans(f)(torch.ones(3)).first]
    assert kinds == [("infinity", "aten::masked_fill.Scalar"), ("NaN", "aten::sub.Tensor")]


def test_in_a_backward_pass():
    def f(x):
        y = x.sqrt()
        return y.sum()

    x = torch.ones(8, 3)
    x[3] = 0
    found = nans(vmap(grad(f)))(x)
    (first,) = found.first
    assert (first.kind, first.phase) == ("infinity", "backward")
    assert first.place.code == "x.sqrt()"
    assert first.samples == ((3,),)
    assert first.transforms == ("vmap(level 1, 8 samples)", "grad")


def test_in_a_tangent():
    x = torch.tensor([1.0, 0.0])
    found = nans(vmap(lambda x: jvp(torch.sqrt, (x,), (x + 1,))))(x)
    (first,) = [each for each in found.first if each.phase == "tangent"]
    assert (first.operator, first.samples) == ("aten::sqrt", ((1,),))


def test_arguments_are_told():
    found = nans(lambda x, y: x * y["b"])(torch.ones(2), {"b": torch.tensor(torch.nan)})
    assert found.arguments == ("args[1]['b']",)
    assert found.first[0].from_arguments


def test_what_came_from_outside():
    weight = torch.tensor([1.0, torch.nan])
    found = nans(vmap(lambda x: x * weight))(torch.ones(3, 2))
    assert found.first[0].from_arguments and "arrives at mul" in str(found)


def test_random_numbers_are_drawn_as_without():
    def f(x):
        return x + torch.rand_like(x)

    torch.manual_seed(0)
    vmap(f, randomness="different")(torch.ones(3))
    state = torch.get_rng_state()
    torch.manual_seed(0)
    nans(vmap(f, randomness="different"))(torch.ones(3))
    assert torch.equal(state, torch.get_rng_state())
