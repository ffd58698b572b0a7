"""Tensors made inside nested forward mode: the tangents written to them are kept."""

import pytest
import torch
from torch.utils import _pytree as pytree

from functorch_ext import functionalize, grad, jacfwd, jacrev, jvp, vmap
from test.oracle import assert_close, rand

NUMBERS = torch.arange(2.0, dtype=torch.float64)


def by_row(out, u):
    out[0] = u[0]
    out[1:] = u[1:]
    return out


def through_views(u):
    out = torch.zeros(3, dtype=u.dtype)
    view = out[1:]
    view.copy_(u)
    out[0] = view.sum()
    return out[:2] + out[1:]


def zeros(u):
    return torch.zeros(2, dtype=u.dtype)


# how u is written into memory made inside, and what comes of it
WRITES = {
    "copy_": (lambda u: zeros(u).copy_(u), lambda u: u),
    "add_": (lambda u: zeros(u).add_(u), lambda u: u),
    "add_ and mul_": (lambda u: zeros(u).add_(u).mul_(u), lambda u: u * u),
    "setitem": (lambda u: by_row(zeros(u), u), lambda u: u),
    "index_put_": (lambda u: zeros(u).index_put_((torch.tensor([1, 0]),), u), lambda u: u.flip(0)),
    "masked_fill_": (
        lambda u: zeros(u).masked_fill_(torch.tensor([True, False]), u.sum()),
        lambda u: torch.stack([u.sum(), 0 * u[1]]),
    ),
    "fill_": (lambda u: zeros(u).fill_(u.sum()), lambda u: u.sum() + 0 * u),
    "addcmul_": (lambda u: zeros(u).addcmul_(u, u), lambda u: u * u),
    "through views": (through_views, lambda u: torch.stack([u.sum() + u[0], u.sum()])),
    "new_zeros": (lambda u: u.new_zeros(2).copy_(u), lambda u: u),
    "zeros_like": (lambda u: torch.zeros_like(u).copy_(u), lambda u: u),
    "clone": (lambda u: NUMBERS.clone().copy_(u), lambda u: u),
    "made of one": (lambda u: (torch.arange(2) * 2.0).double().mul_(u), lambda u: 2 * NUMBERS * u),
}

NESTS = {
    "jvp(jvp)": lambda f, x: jvp(lambda x: jvp(f, (x,), (x.sin(),)), (x,), (x,)),
    "jvp(jvp) of a constant": lambda f, x: jvp(lambda x: jvp(f, (x,), (NUMBERS,))[1], (x,), (x,)),
    "jvp(jacfwd)": lambda f, x: jvp(jacfwd(f), (x,), (x,)),
    "jacfwd(jvp)": lambda f, x: jacfwd(lambda x: jvp(f, (x,), (x.sin(),)))(x),
    "jacfwd(jacfwd)": lambda f, x: jacfwd(jacfwd(f))(x),
    "jvp(jvp(jvp))": lambda f, x: jvp(
        lambda x: jvp(lambda x: jvp(f, (x,), (x.sin(),)), (x,), (x.cos(),)), (x,), (x,)
    ),
    "jvp(functionalize(jvp))": lambda f, x: jvp(
        functionalize(lambda x: jvp(f, (x,), (x.sin(),))), (x,), (x,)
    ),
    "jvp(jvp(functionalize))": lambda f, x: jvp(
        lambda x: jvp(functionalize(f), (x,), (x.sin(),)), (x,), (x,)
    ),
    "jacrev(jvp(jvp))": lambda f, x: jacrev(
        lambda x: jvp(lambda x: jvp(f, (x,), (x.sin(),)), (x,), (x.cos(),))
    )(x),
    "vmap(jvp(jvp))": lambda f, x: vmap(
        lambda x: jvp(lambda x: jvp(f, (x,), (x.sin(),)), (x,), (x,))
    )(torch.stack([x, x * 2])),
    "vmap(jvp(jacfwd))": lambda f, x: vmap(lambda x: jvp(jacfwd(f), (x,), (x,)))(
        torch.stack([x, x * 2])
    ),
    "vmap(vmap(jvp(jacfwd)))": lambda f, x: vmap(vmap(lambda x: jvp(jacfwd(f), (x,), (x,))))(
        torch.stack([x, x * 2])[None]
    ),
    "vmap(jacfwd(jacfwd))": lambda f, x: vmap(jacfwd(jacfwd(f)))(torch.stack([x, x * 2])),
    "jvp(vmap(jvp))": lambda f, x: jvp(
        lambda x: vmap(lambda x: jvp(f, (x,), (x.sin(),)))(torch.stack([x, x * 2])), (x,), (x,)
    ),
    "jvp(jvp(vmap))": lambda f, x: jvp(
        lambda x: jvp(lambda x: vmap(f)(torch.stack([x, x * 2])), (x,), (x.sin(),)), (x,), (x,)
    ),
    "jacfwd(jacrev)": lambda f, x: jacfwd(jacrev(f))(x),
    "grad(jvp)": lambda f, x: grad(lambda x: jvp(f, (x,), (x.sin(),))[1].sum())(x),
}


@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("write", WRITES)
def test_writes(write, nest):
    written, right = WRITES[write]
    x = rand(2)
    result = NESTS[nest](lambda x: written(x.sin()).exp(), x)
    expected = NESTS[nest](lambda x: right(x.sin()).exp(), x)
    for one, other in zip(pytree.tree_leaves(result), pytree.tree_leaves(expected), strict=True):
        assert_close(one, other)


def outside_alone(u):
    return (NUMBERS * 2).copy_(u)


def outside_itself(u):
    return NUMBERS.copy_(u)


@pytest.mark.parametrize("write", [outside_alone, outside_itself])
@pytest.mark.parametrize("nest", ["jvp(jvp)", "jvp(jacfwd)", "jacfwd(jvp)", "jvp(jvp(jvp))"])
def test_a_tensor_from_outside_takes_no_tangent(write, nest):
    with pytest.raises(RuntimeError, match="a tensor from outside"):
        NESTS[nest](write, rand(2))
    assert_close(NUMBERS, torch.arange(2.0, dtype=torch.float64))


def test_nor_a_gradient_of_another_plane():
    def function(x, weight):
        return x.sum() * grad(lambda weight: (NUMBERS * 1).copy_(weight).sum())(weight)

    with pytest.raises(RuntimeError, match="a tensor from outside"):
        vmap(function, (0, None))(rand(3, 2), rand(2))


def test_what_is_made_inside_can_be_read():
    def function(u):
        made = torch.arange(2) * 2
        assert made.tolist() == [0, 2]
        assert made.numpy()[1] == 2
        assert torch.zeros(2)[1].item() == 0
        return u * made

    x = rand(2)
    assert_close(NESTS["jvp(jvp)"](function, x), NESTS["jvp(jvp)"](lambda u: u * 2 * NUMBERS, x))


def test_but_not_with_a_tangent():
    def function(u):
        made = torch.zeros(2, dtype=u.dtype)
        view = made[:1]
        made.copy_(u)
        return view.numpy()

    with pytest.raises(RuntimeError, match="reads the memory of a tensor inside a transform"):
        NESTS["jvp(jvp)"](function, rand(2))
