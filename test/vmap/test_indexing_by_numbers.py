"""Indices without dimensions that differ between samples: laid out as a number's result is."""

import pytest
import torch

import functorch_ext as F
from test.oracle import assert_close, rand

X = rand(2, 3, 4, 5)
ROW = torch.tensor([1, -1])
MASK = torch.tensor([True, False])
ALL = slice(None)
ROWS = torch.tensor([0, 2])
SHARED = torch.tensor(1)
N = object()  # the number that differs

INDICES = {
    "x[n]": N,
    "x[n,]": (N,),
    "x[:, n]": (ALL, N),
    "x[..., n]": (..., N),
    "x[n, ...]": (N, ...),
    "x[None, n]": (None, N),
    "x[n, None]": (N, None),
    "x[n, 1]": (N, 1),
    "x[1, n]": (1, N),
    "x[n, shared]": (N, SHARED),
    "x[n, n, n]": (N, N, N),
    "x[n, :, n]": (N, ALL, N),
    "x[n, 1:3]": (N, slice(1, 3)),
    "x[n, :, rows]": (N, ALL, ROWS),
    "x[:, n, rows]": (ALL, N, ROWS),
    "x[rows, n]": (ROWS, N),
    "x[rows, :, n]": (ROWS, ALL, N),
    "x[rows, n, rows]": (ROWS, N, ROWS),
    "x[n, rows, rows]": (N, ROWS, ROWS),
    "x[n, [0, 2]]": (N, [0, 2]),
    "x[n, :, True]": (N, ALL, True),
    "x[n, None, rows]": (N, None, ROWS),
    "x[n, mask]": (N, torch.tensor([True, False, True, True])),
}


def filled(index, n):
    if index is N:
        return n
    return tuple(n if each is N else each for each in index)


def loop(func, *tensors):
    return torch.stack([func(*samples) for samples in zip(*tensors, strict=True)])


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_read(index):
    read = lambda x, n: x[filled(index, n)]
    assert_close(F.vmap(read)(X, ROW), loop(read, X, ROW))
    assert_close(F.vmap(read, in_dims=(None, 0))(X[0], ROW), loop(lambda n: read(X[0], n), ROW))


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_write(index):
    def write(x, n, value):
        y = x.clone()
        y[filled(index, n)] = value
        return y

    values = torch.sin(loop(lambda x, n: x[filled(index, n)], X, ROW))
    assert_close(F.vmap(write)(X, ROW, values), loop(write, X, ROW, values))
    constant = lambda x, n: write(x, n, 2.5)
    assert_close(F.vmap(constant)(X, ROW), loop(constant, X, ROW))


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_gradient(index):
    total = lambda x, n: x[filled(index, n)].sin().sum()
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loop(total, x, ROW).sum(), x)
    assert_close(F.vmap(F.grad(total))(X, ROW), expected)


@pytest.mark.parametrize("index", [N, (N, ROWS), (ALL, N), (None, N)])
def test_write_under_masks(index):
    def write(x, mask):
        y = x[0, 0, :3].clone() if index is N else x[0, :2, :3].clone()
        y[filled(index, mask) if index is N else mask] = 7.0
        return y

    assert_close(F.vmap(write)(X, MASK), loop(write, X, MASK))


def test_a_shared_number_is_a_number():
    def write(x):
        row = torch.tensor(1)
        y = x.clone()
        y[row].mul_(3.0)  # a view, as with any number
        return y

    assert_close(F.vmap(write)(X), loop(write, X))


def test_too_many_indices_are_refused():
    with pytest.raises(IndexError, match="too many indices"):
        F.vmap(lambda x, n: x[n, 0, 0, 0])(X, ROW)


def test_subclasses_and_modes_are_asked_first():
    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    seen = []
    with Seen():
        F.vmap(lambda x, n: x[n])(X, ROW)
    assert torch.Tensor.__getitem__ in seen
