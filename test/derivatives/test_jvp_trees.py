"""jvp of containers: plain ones, which go through C++, and others, give the same."""

from collections import OrderedDict

import pytest
import torch

from functorch_ext import jvp

x, dx = torch.linspace(0.1, 0.7, 3), torch.tensor([1.0, -2.0, 0.5])
y, dy = torch.linspace(1.0, 2.0, 3), torch.tensor([0.25, 3.0, -1.0])


def both(first, second):
    return {"product": first * second, "rest": [first.sin(), (second.exp(),)]}


EXPECTED = {
    "product": x * dy + y * dx,
    "rest": [x.cos() * dx, (y.exp() * dy,)],
}

# A function of two tensors as one of a container of them.
FORMS = {
    "arguments": (both, (x, y), (dx, dy)),
    "lists": (both, [x, y], [dx, dy]),
    "a list of tangents": (both, (x, y), [dx, dy]),
    "dict": (lambda d: both(d["x"], d["y"]), ({"x": x, "y": y},), ({"x": dx, "y": dy},)),
    "dicts of other order": (
        lambda d: both(d["x"], d["y"]),
        ({"x": x, "y": y},),
        ({"y": dy, "x": dx},),
    ),
    "nested": (lambda t: both(t[0], t[1]["y"]), ([x, {"y": y}],), ([dx, {"y": dy}],)),
    "ordered dict": (
        lambda d: both(d["x"], d["y"]),
        (OrderedDict(x=x, y=y),),
        (OrderedDict(x=dx, y=dy),),
    ),
}


def assert_equal(tree, expected):
    leaves, structure = torch.utils._pytree.tree_flatten(tree)
    expected_leaves, expected_structure = torch.utils._pytree.tree_flatten(expected)
    assert structure == expected_structure
    torch.testing.assert_close(leaves, expected_leaves)


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    func, primals, tangents = FORMS[form]
    output, tangent = jvp(func, primals, tangents)
    assert_equal(output, both(x, y))
    assert_equal(tangent, EXPECTED)


def test_output_of_a_registered_container():
    output, tangent = jvp(lambda x: OrderedDict(sin=x.sin()), (x,), (dx,))
    assert type(output) is OrderedDict and type(tangent) is OrderedDict
    torch.testing.assert_close(tangent["sin"], x.cos() * dx)


def test_no_dependence_is_a_zero_without_a_graph():
    weight = torch.ones(3, requires_grad=True)
    _, (tangent, zero) = jvp(lambda x: (x.sin(), weight * 2), (x,), (dx,))
    torch.testing.assert_close(tangent, x.cos() * dx)
    assert zero.eq(0).all() and not zero.requires_grad
    with pytest.raises(RuntimeError, match="independent of the inputs"):
        jvp(lambda x: (x.sin(), weight * 2), (x,), (dx,), strict=True)


@pytest.mark.parametrize(
    ("primals", "tangents", "message"),
    [
        ((x, y), (dx,), "same python structure"),
        (({"x": x},), ({"y": dx},), "same python structure"),
        (({"x": x},), ({"x": dx, "y": dx},), "same python structure"),
        (([x, y],), ((dx, dy),), "same python structure"),
        ((x,), (torch.ones(1),), "shape and dtype"),
        ((x,), (dx.double(),), "shape and dtype"),
        ((x,), (1.0,), "only contain Tensors"),
    ],
)
def test_other_structures_are_refused(primals, tangents, message):
    with pytest.raises(RuntimeError, match=message):
        jvp(lambda *args: x.sin(), primals, tangents)


def test_the_frame_has_ended_after_an_error():
    def failing(x):
        raise KeyError("inside")

    with pytest.raises(KeyError):
        jvp(failing, (x,), (dx,))
    with pytest.raises(RuntimeError, match="non-empty output"):
        jvp(lambda x: (), (x,), (dx,))
    assert torch.autograd.forward_ad._current_level == -1
    torch.testing.assert_close(jvp(torch.sin, (x,), (dx,))[1], x.cos() * dx)
