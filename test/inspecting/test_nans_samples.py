"""``debug.nans``: which samples, in branches of control flow and in chunks; which phase."""

import pytest
import torch

from functorch_ext import grad, jacfwd, jacrev, vmap
from functorch_ext.debug import nans
from test.oracle import rand


def test_a_branch_is_of_the_samples_that_take_it():
    def f(r):
        return torch.cond(r > 0, lambda r: r.log(), lambda r: r.sqrt(), (r,))

    first = nans(vmap(f))(torch.tensor([1.0, 4.0, -1.0])).first[0]
    assert (first.operator, first.samples) == ("aten::sqrt", ((2,),))


def test_a_branch_in_nested_vmaps():
    def f(r, s):
        return torch.cond(s > 0, lambda r: r.log(), lambda r: r + 0, (r,))

    r, s = torch.tensor([1.0, -1.0]), torch.tensor([1.0, -1.0, 2.0])
    nested = vmap(vmap(f, in_dims=(0, None)), in_dims=(None, 0))
    assert nans(nested)(r, s).first[0].samples == ((0, 1), (2, 1))


def test_a_loop_is_of_the_samples_that_are_in_it():
    def f(n):
        start = torch.zeros((), dtype=torch.long), torch.tensor(2.0)
        return torch.while_loop(lambda i, y: i < n, lambda i, y: (i + 1, y.log()), start)

    first = nans(vmap(f))(torch.tensor([1, 2, 4])).first[0]
    assert (first.operator, first.samples) == ("aten::log", ((2,),))


def test_an_argument_in_a_branch_was_not_finite_before():
    def f(x):
        return torch.cond(x.isnan(), lambda x: x * 2, lambda x: x + 2, (x,))

    (first,) = nans(vmap(f))(torch.tensor([1.0, torch.nan])).first
    assert first.samples == ((1,),) and first.from_arguments


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 6])
def test_samples_of_a_chunk(chunk_size):
    x = torch.ones(6)
    x[5] = -1
    assert nans(vmap(torch.log, chunk_size=chunk_size))(x).first[0].samples == ((5,),)
    nested = vmap(vmap(torch.log, chunk_size=chunk_size), chunk_size=2)
    assert nans(nested)(torch.stack([x.abs(), x, x.abs(), x])).first[0].samples == ((1, 5),)


def test_samples_of_a_chunk_in_a_backward_pass():
    x = torch.ones(5)
    x[4] = 0
    first = nans(vmap(grad(torch.sqrt), chunk_size=2))(x).first[0]
    assert (first.phase, first.samples) == ("backward", ((4,),))


@pytest.mark.parametrize("transform", [jacfwd, jacrev])
def test_vectors_of_a_chunk(transform):
    x = torch.ones(6)
    x[5] = 0
    found = nans(transform(torch.sqrt, chunk_size=4))(x).first
    infinity = next(each for each in found if each.kind == "infinity")
    assert infinity.samples == ((5,),)


def test_adding_up_gradients_is_backward():
    def f(x):
        return (x * 3e38) + (x * 2e38)

    found = nans(vmap(grad(lambda x: f(x) * 1.0)))(rand(3).float() * 0 + 0.5).first
    assert [(each.kind, each.phase, each.operator) for each in found] == [
        ("infinity", "backward", "aten::add.Tensor")
    ]


def test_an_error_says_the_operator_the_samples_and_the_line():
    def f(x):
        x.log()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        nans(vmap(f))(torch.tensor([1.0, -1.0]))
    note = caught.value.__notes__[-1]
    assert "NaN appears in log (forward), sample 1, inside vmap(level 1, 2 samples)" in note
    assert note.endswith("in f: x.log()")
