"""Views and writes inside ``vmap`` where the function itself calls ``torch.autograd``.

Nothing requires grad when a view is taken; what is written later does.
"""

import pytest
import torch

from functorch_ext import grad, jvp, vmap
from test.oracle import assert_close, loop

X = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]], dtype=torch.float64)
W = torch.tensor([[2.0, 0.5, -1.5], [0.7, 1.1, 3.0]], dtype=torch.float64)


def leaf(w):
    return w.detach().clone().requires_grad_()


def gradient(output, w):
    return torch.autograd.grad((output * output.detach().cos()).sum(), w)[0]


def write_to_a_view(y, w):
    y[1:].mul_(w[1:])
    return y


def write_to_the_base(y, w):
    v = y[1:]
    y.mul_(w)
    return v


def write_to_a_sibling(y, w):
    v, u = y[1:], y[:2]
    v.mul_(w[1:])
    return u


def write_to_a_view_of_a_view(y, w):
    v = y[1:]
    u = v.flip(0).view(2)[:1], v[1:]
    u[1].mul_(w[:1])
    return torch.cat([y, v, u[1]])


def write_to_a_reshaped_view(y, w):
    m = y.unsqueeze(0).expand(1, 3).t().view(3)
    m.add_(w)
    return y


def write_twice(y, w):
    v = y[1:]
    v.mul_(w[1:])
    v.add_(w[:2].exp())
    return y * v.sum()


def write_to_the_base_of_a_diagonal(y, w):
    square = y.new_zeros(3, 3)
    diagonal = square.diagonal()
    square.add_(w)
    return diagonal * y


def write_to_memory_made_inside(y, w):
    total = torch.zeros(3, dtype=torch.float64)
    first = total[:2]
    first.copy_(w[1:] * y[1:])
    return total


def write_by_an_index(y, w):
    v = y.view(3)
    v[torch.tensor([0, 2])] = w[:2]
    return y


def fill_a_view(y, w):
    y[0].fill_(w[1])
    return y


def view_after_the_write(y, w):
    v = y.view(3)
    v.mul_(w)
    return y[1:]


WRITES = [
    write_to_a_view, write_to_the_base, write_to_a_sibling, write_to_a_view_of_a_view,
    write_to_a_reshaped_view, write_twice, write_to_the_base_of_a_diagonal,
    write_to_memory_made_inside, write_by_an_index, fill_a_view, view_after_the_write,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
def test_writes(write):
    def func(x, w):
        w = leaf(w)
        return gradient(write(x * 2, w), w)

    assert_close(vmap(func)(X, W), loop(func)(X, W))
    assert_close(vmap(func, (1, 0))(X.t(), W), loop(func)(X, W))
    xs, ws = torch.stack([X, X + 1]), torch.stack([W, W * 2])
    assert_close(vmap(vmap(func))(xs, ws), loop(loop(func))(xs, ws))


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
def test_writes_that_a_transform_inside_differentiates(write):
    def func(x, w):
        y = x * 2
        v = y[:2]
        return grad(lambda w: (write(y, w).sum() + v.sum()).sin())(w)

    def plain(x, w):
        y = x * 2
        v = y[:2]
        w = leaf(w)
        return torch.autograd.grad((write(y, w).sum() + v.sum()).sin(), w)[0]

    assert_close(vmap(func)(X, W), loop(plain)(X, W))


def test_tangents_reach_the_base():
    def func(x, w):
        y = x * 2
        v, u = y[1:], y[:2]
        return jvp(lambda w: (v.mul_(w[1:]), y * u.sum())[1], (w,), (w.exp(),))[1]

    def plain(x, w):
        product = lambda w: torch.cat([2 * x[:1], 2 * x[1:] * w[1:]])
        result = lambda w: product(w) * product(w)[:2].sum()
        return torch.autograd.functional.jvp(result, w, w.exp())[1]

    assert_close(vmap(func)(X, W), loop(plain)(X, W))


def fails_as_plain(func, message):
    with pytest.raises(RuntimeError, match=message):
        loop(func)(X, W)
    with pytest.raises(RuntimeError, match=message):
        vmap(func)(X, W)


def test_views_taken_without_grad_mode():
    def written(x, w):
        w = leaf(w)
        y = x * w
        with torch.no_grad():
            v = y[1:]
        v.mul_(w[1:])
        return y

    def read(x, w):
        w = leaf(w)
        y = x * w
        with torch.no_grad():
            v = y[1:]
        return gradient(v * w[1:], w)

    fails_as_plain(written, "created in no_grad mode")
    assert_close(vmap(read)(X, W), loop(read)(X, W))


def test_one_of_several_views_is_not_written_to():
    def func(x, w):
        first, _ = (x * 2).split([1, 2])
        return first.mul_(leaf(w)[:1])

    fails_as_plain(func, "returns multiple views")


def saved_and_written(write):
    def func(x, w):
        w = leaf(w)
        saved = torch.ones(3, dtype=torch.float64)
        view = saved[1:]
        y = w * saved
        write(saved, view)
        return torch.autograd.grad(y.sum(), w)[0]

    return func


OVERWRITES = {
    "zero_": lambda saved, view: saved.zero_(),
    "a view": lambda saved, view: view.add_(1),
    "out=": lambda saved, view: torch.add(saved, 1, out=saved),
    "foreach": lambda saved, view: torch._foreach_add_([saved, view], 1),
    "index": lambda saved, view: saved.__setitem__(0, 3.0),
    "without grad mode": lambda saved, view: torch.no_grad()(saved.mul_)(2),
    "detached": lambda saved, view: saved.detach().mul_(2),
    "part": lambda saved, view: saved.split(1)[0].mul_(2),
}


@pytest.mark.parametrize("name", OVERWRITES)
def test_what_was_saved_is_not_overwritten(name):
    fails_as_plain(saved_and_written(OVERWRITES[name]), "modified by an inplace operation")


def test_a_weight_that_was_saved_is_not_overwritten():
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def func(x):
        w = leaf(x)
        y = w * weight
        with torch.no_grad():
            weight.mul_(1)
        return torch.autograd.grad(y.sum(), w)[0]

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        vmap(func)(X)


def test_a_view_of_another_dtype():
    def read(x, w):
        z = torch.view_as_complex(torch.stack([x, x * 2], -1))
        v = torch.view_as_real(z)
        w = leaf(w)
        return gradient(v.sum(-1) * w, w)

    def written(x, w):
        z = torch.complex(x, x * 2)
        v = torch.view_as_real(z)
        z.mul_(leaf(w))
        return v.sum()

    assert_close(vmap(read)(X, W), loop(read)(X, W))
    with pytest.raises(RuntimeError, match="Take the view after requires_grad_"):
        vmap(written)(X, W)
