"""copy, deepcopy, x.new and x.data of tensors inside transforms."""

import copy

import pytest
import torch

from functorch_ext import functionalize, grad, jvp, vmap
from test.oracle import assert_close, loop, rand

OUTSIDE = torch.ones(3, dtype=torch.float64)

TRANSFORMS = {
    "vmap": vmap,
    "vmap(vmap)": lambda f: lambda x: vmap(vmap(f))(x.expand(2, 4, 3)),
    "vmap(grad)": lambda f: vmap(grad(lambda x: f(x).sum())),
    "grad(vmap)": lambda f: grad(lambda x: vmap(f)(x).sum()),
    "vmap(jvp)": lambda f: vmap(lambda x: jvp(f, (x,), (x.cos(),))),
    "jvp(jvp)": lambda f: lambda x: jvp(lambda x: jvp(f, (x,), (x.cos(),)), (x[0],), (x[0].sin(),)),
    "functionalize": lambda f: lambda x: functionalize(f)(x[0]),
}
MADE = {
    "made inside": lambda x: torch.ones(3, dtype=x.dtype),
    "of the transform": lambda x: x.detach() * 2,
    "a parameter": lambda x: torch.nn.Parameter(torch.ones(3, dtype=x.dtype)),
    "of a shared one": lambda x: OUTSIDE.clone(),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies(copied, made, transform):
    def function(x):
        one = copied(MADE[made](x))
        assert one.shape == (3,) and isinstance(one, type(MADE[made](x)))
        return one * x

    x = rand(4, 3)
    expected = TRANSFORMS[transform](lambda x: MADE[made](x) * x)(x)
    assert_close(TRANSFORMS[transform](function)(x), expected)


def test_a_copy_shares_memory_and_a_deep_copy_does_not():
    def function(x):
        made = torch.zeros(3, dtype=x.dtype)
        made.label = "made"
        shallow, deep = copy.copy(made), copy.deepcopy(made)
        assert shallow.label == deep.label == "made"
        made.add_(x)
        shallow[1] = x[0]
        deep.sub_(x)
        return made.clone(), shallow, deep

    x = rand(4, 3)
    assert_close(vmap(function)(x), loop(function)(x))


def test_deep_copies_of_containers():
    def function(x):
        made = torch.ones(3, dtype=x.dtype)
        first, second = copy.deepcopy([made, made])
        assert first is second and first is not made
        return first * x

    x = rand(4, 3)
    assert_close(vmap(function)(x), x)


def test_plain_tensors_are_copied_as_ever():
    weight = torch.nn.Parameter(torch.ones(3))
    weight.label = "weight"
    one = copy.copy(weight)
    assert type(one) is torch.nn.Parameter and one.label == "weight" and one.requires_grad
    assert one.data_ptr() == weight.data_ptr()
    assert copy.deepcopy(weight).data_ptr() != weight.data_ptr()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_new(transform):
    def function(x):
        numbers = x.new([1.0, 2.0, 3.0])
        made = x.new(3).copy_(x)
        table = x.new(2, 3).zero_()
        table[1] = x
        assert x.new().shape == (0,) and x.new(torch.Size([2, 2])).shape == (2, 2)
        assert x.new(made).shape == (3,)
        return numbers * made + table.sum(0)

    x = rand(4, 3)
    numbers = torch.tensor([2.0, 3.0, 4.0], dtype=x.dtype)
    assert_close(
        TRANSFORMS[transform](function)(x), TRANSFORMS[transform](lambda x: numbers * x)(x)
    )


SOURCES = {
    "new_zeros": lambda x: x.new_zeros(3),
    "batched": lambda x: x.detach() * 3,
    "made inside": lambda x: torch.full((3,), 4.0, dtype=x.dtype),
    "outside": lambda x: OUTSIDE,
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("made", ["made inside", "of the transform", "a parameter"])
def test_data(made, source, transform):
    def function(x):
        one = MADE[made](x)
        one.data = SOURCES[source](x)
        return one * x

    x = rand(4, 3)
    expected = TRANSFORMS[transform](lambda x: SOURCES[source](x) * x)(x)
    assert_close(TRANSFORMS[transform](function)(x), expected)


def test_data_shares_memory():
    def function(x):
        one, other = torch.ones(3, dtype=x.dtype), torch.zeros(3, dtype=x.dtype)
        view = one[1:]
        one.data = other
        other[0] = x[0]
        one[1] = x[1]
        view[1] = x[2]
        return one.clone(), other.clone(), view.clone()

    x = rand(4, 3)
    assert_close(vmap(function)(x), loop(function)(x))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("transform", ["vmap", "vmap(grad)", "vmap(jvp)", "jvp(jvp)"])
def test_data_of_a_tensor_from_outside_raises(transform, requires_grad):
    outside = torch.ones(3, dtype=torch.float64, requires_grad=requires_grad)

    def function(x):
        outside.data = x * 2
        return outside * x

    with pytest.raises(RuntimeError, match="have incompatible tensor type"):
        TRANSFORMS[transform](function)(rand(4, 3))
    assert outside.tolist() == [1, 1, 1]


def test_data_of_another_vmap():
    def function(x, y):
        made = torch.zeros(3, dtype=x.dtype)
        made.data = x  # of the outer one
        return made * y

    x, y = rand(4, 3), rand(2, 3)
    result = vmap(lambda x: vmap(lambda y: function(x, y))(y))(x)
    assert_close(result, x.unsqueeze(1) * y)

    def outwards(x, y):
        made = x * 2
        made.data = y
        return made

    with pytest.raises(RuntimeError, match="have incompatible tensor type"):
        vmap(lambda x: vmap(lambda y: outwards(x, y))(y))(x)
