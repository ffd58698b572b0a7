"""``debug.show`` and ``debug.leaks``."""

import pytest
import torch

from functorch_ext import functionalize, grad, jvp, vmap
from functorch_ext.debug import leaks, show
from test.oracle import rand


def test_a_plain_tensor_is_one_plane():
    assert str(show(torch.ones(2, 3))) == "plain: shape (2, 3), float32, cpu"
    assert "requires grad" in str(show(torch.ones(2, requires_grad=True)))
    with pytest.raises(TypeError, match="expected a tensor, but got a list"):
        show([torch.ones(2)])


def test_the_planes_of_nested_transforms():
    shown = []

    def f(x, y):
        shown.append(show(x.sin()))
        shown.append(show(torch.zeros(2)))
        shown.append(show(y))
        return x.sum()

    x = rand(3, 4, 5)
    vmap(vmap(grad(f), in_dims=(1, None)), in_dims=(2, 0))(x, rand(5, 2))
    first, made, unbatched = shown
    assert [(plane.level, plane.shape, plane.bdim) for plane in first] == [
        ("vmap(level 2, 4 samples)", (3,), first[0].bdim),
        ("vmap(level 1, 5 samples)", (3, 4), 2),
        ("plain", (3, 4, 5), None),
    ]
    assert "recorded by SinBackward0" in first[0].notes
    assert "made inside" in made[0].notes and "the same for all samples" in made[0].notes
    assert unbatched[0].level == "vmap(level 1, 5 samples)"
    assert str(first).count("\n") == 2
    assert first.to_dict()[2]["dtype"] == "torch.float64"


def test_tangents_and_functional_tensors():
    shown = []

    def f(x):
        shown.append(show(x))
        return x.sin()

    jvp(f, (rand(3),), (rand(3),))
    assert "has a tangent" in shown[0][0].notes
    functionalize(f)(rand(3))
    assert shown[1][0].level == "functionalize(level 1)"


class Keeper:
    pass


module_variable = None


def test_what_outlived_and_who_holds_it():
    global module_variable
    keeper, kept = Keeper(), {"inner": []}

    def f(x):
        global module_variable
        keeper.tensor = x * 2
        kept["inner"].append(x * 3)
        module_variable = x * 4
        y = x * 5
        kept["closure"] = lambda: y
        return x

    assert not leaks().tensors
    vmap(f)(rand(8, 3))
    found = leaks()
    holders = sorted(holder for leak in found.tensors for holder in leak.holders)
    text = str(found)
    assert len(found.tensors) == 4, text
    assert {leak.level for leak in found.tensors} == {"vmap(level 1, 8 samples)"}
    assert "the attribute tensor of a Keeper" in holders
    assert any("test_show_and_leaks.module_variable" in each for each in holders), text
    assert any("closes over" in each and "variable y" in each for each in holders), text
    assert any("(a list of 1)" in each for each in holders), text
    assert found.hidden_levels == 0
    module_variable = None
    keeper.tensor = None
    kept.clear()
    assert not leaks(), str(leaks())


def test_holders_are_of_the_program_alone():
    kept = {}

    def f(x):
        kept["k"] = x * 2
        Keeper.of_class = x * 3
        return x

    vmap(f)(rand(8))
    holders = [leak.holders for leak in leaks().tensors]
    del Keeper.of_class
    kept.clear()
    named = sorted(holder for each in holders for holder in each)
    assert all("_names_in" not in each and "a closure" not in each for each in named), named
    assert "the attribute of_class of the class Keeper" in named
    assert any("variable kept" in each and each.endswith("(entry 'k')") for each in named), named


def test_what_a_graph_has_saved():
    kept = []

    def f(x):
        y = x.clone().requires_grad_()
        kept.append((y * x).sum())  # the product has saved x
        return x

    vmap(f)(torch.ones(8, 3))
    found = leaks()
    assert any("MulBackward0" in holder for leak in found.tensors for holder in leak.holders), found
    kept.clear()
    assert not leaks().tensors


def test_nothing_is_left_by_transforms():
    vmap(grad(lambda x: x.sin().sum()))(rand(8, 3))
    assert not leaks()
