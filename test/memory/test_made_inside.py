"""Tensors that a function under vmap makes: they take values that differ between samples."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from functorch_ext import grad, hessian, jacfwd, jacrev, jvp, vmap
from test.oracle import assert_close, loop, rand

NUMBERS = torch.arange(3.0, dtype=torch.float64)

# how a tensor of shape (3,) is made
MAKERS = {
    "zeros": lambda x: torch.zeros(3, dtype=torch.float64),
    "ones": lambda x: torch.ones((3,), dtype=torch.float64),
    "full": lambda x: torch.full((3,), 2.0, dtype=torch.float64),
    "empty": lambda x: torch.empty(3, dtype=torch.float64).fill_(1),
    "empty_strided": lambda x: torch.empty_strided((3,), (2,), dtype=torch.float64).zero_(),
    "eye": lambda x: torch.eye(3, dtype=torch.float64)[1],
    "arange": lambda x: torch.arange(3.0, dtype=torch.float64),
    "linspace": lambda x: torch.linspace(0, 1, 3, dtype=torch.float64),
    "tensor": lambda x: torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
    "zeros_like": lambda x: torch.zeros_like(NUMBERS),
    "ones_like": lambda x: torch.ones_like(NUMBERS),
    "full_like": lambda x: torch.full_like(NUMBERS, 3.0),
    "new_zeros": lambda x: NUMBERS.new_zeros(3),
    "new_ones": lambda x: NUMBERS.new_ones(3),
    "new_full": lambda x: NUMBERS.new_full((3,), 2.0),
    "new_tensor": lambda x: x.new_tensor([1.0, 2.0, 3.0]),
    "made of one": lambda x: torch.arange(3).double() * 2,
    "clone": lambda x: NUMBERS.clone(),
    "transposed clone": lambda x: NUMBERS.expand(3, 3).clone().t()[0],
    "deepcopy": lambda x: copy.deepcopy(NUMBERS),
    "stack": lambda x: torch.stack([NUMBERS])[0],
    "cat": lambda x: torch.cat([NUMBERS[:1], NUMBERS[1:]]),
    "hstack": lambda x: torch.hstack([NUMBERS[:1], NUMBERS[1:]]),
    "as_tensor": lambda x: torch.as_tensor([1.0, 2.0, 3.0], dtype=torch.float64),
    "asarray": lambda x: torch.asarray(NUMBERS, copy=True),
    "new_tensor of a shared one": lambda x: NUMBERS.new_tensor([1.0, 2.0, 3.0]),
    "one_hot": lambda x: F.one_hot(torch.tensor(1), 3).double(),
    "to": lambda x: NUMBERS.to(NUMBERS.dtype, copy=True),
    "double": lambda x: NUMBERS.float().double(),
    "repeat": lambda x: NUMBERS.repeat(1),
    "of the batched one": lambda x: torch.zeros_like(x),
}


def add(out, x):
    return out.add_(x)


def assign(out, x):
    out[0] = x[1]
    out[1:] = x[:2] + out[1:]
    return out


def through_views(out, x):
    row, part = out.view(1, 3), out[1:]
    part.mul_(x[:2])
    row[0, 0] = x[0]
    out[2].copy_(x.sum())
    return out * row.sum() + part.sum()


def by_index(out, x):
    out[torch.tensor([2, 0])] = x[:2]
    out.masked_fill_(x > 0.5, 3.0)
    return out.scatter_(0, torch.tensor([1]), x[2:])


WRITES = [add, assign, through_views, by_index]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("maker", MAKERS)
def test_writes(maker, write):
    def function(x):
        return write(MAKERS[maker](x), x)

    x = rand(4, 3)
    assert_close(vmap(function)(x), loop(function)(x))
    assert_close(vmap(function, 1, 1)(x.T), loop(function)(x).T)


DERIVATIVES = {
    "vmap(grad)": lambda f: vmap(grad(lambda x: f(x).sin().sum())),
    "grad(vmap)": lambda f: grad(lambda x: vmap(f)(x).sin().sum()),
    "vmap(jvp)": lambda f: vmap(lambda x: jvp(f, (x,), (x.cos(),))[1]),
    "vmap(jvp) of a shared tangent": lambda f: vmap(lambda x: jvp(f, (x,), (NUMBERS,))[1]),
    "jvp(vmap)": lambda f: lambda x: jvp(vmap(f), (x,), (x.cos(),))[1],
    "vmap(jacrev)": lambda f: vmap(jacrev(f)),
    "vmap(jacfwd)": lambda f: vmap(jacfwd(f)),
    "vmap(hessian)": lambda f: vmap(hessian(lambda x: f(x.sin()).pow(2).sum())),
    "jacrev(vmap)": lambda f: jacrev(vmap(f)),
    "grad(vmap(grad))": lambda f: grad(lambda x: vmap(grad(lambda x: f(x**2).sum()))(x).sum()),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_derivatives(derivative, write):
    def made_inside(x):
        return write(torch.ones(3, dtype=torch.float64), x)

    def batched_from_the_start(x):
        return write(x * 0 + 1, x)

    x = rand(4, 3)
    transform = DERIVATIVES[derivative]
    assert_close(transform(made_inside)(x), transform(batched_from_the_start)(x))


@pytest.mark.parametrize("write", WRITES)
def test_nested(write):
    def outer_only(x, y):
        return write(torch.zeros(3, dtype=torch.float64), x) + y

    def one_after_the_other(x, y):
        out = torch.zeros(3, dtype=torch.float64)
        part = out[:2]
        write(out, x)
        part += y[:2]
        return write(out, y), part

    def inner_first(x, y):
        out = torch.ones(3, dtype=torch.float64)
        part = out[1:]
        write(out, y)
        part *= x[1:]
        return out, part

    x, y = rand(4, 3), rand(2, 3)
    for function in (outer_only, one_after_the_other, inner_first):

        def pairs(transform, function=function):
            return transform(lambda x: transform(lambda y: function(x, y))(y))(x)

        assert_close(pairs(vmap), pairs(loop))


def test_each_tensor_is_its_own():
    def function(x):
        made = [torch.zeros(3, dtype=torch.float64) for _ in range(3)]
        copy = made[0].clone()
        made[0].add_(x)
        return made[0], made[1], copy, made[2] + 1

    x = rand(4, 3)
    assert_close(vmap(function)(x), loop(function)(x))


def test_in_a_loop():
    def function(x):
        out = torch.zeros(5, 3, dtype=x.dtype)
        for i in range(5):
            out[i] = x**i
        return out

    x = rand(4, 3)
    assert_close(vmap(function)(x), loop(function)(x))


def test_what_is_never_written_to_can_be_read():
    def function(x):
        made = torch.tensor([1.0, 2.0])
        assert made.tolist() == [1.0, 2.0]
        assert np.array_equal(made.numpy(), [1.0, 2.0])
        assert torch.arange(3)[1].item() == 1
        return x

    vmap(function)(rand(4, 3))
    vmap(vmap(function))(rand(2, 4, 3))


def test_no_stale_memory_is_read_in_nested_vmaps():
    def function(x, y):
        made = torch.zeros(3, dtype=x.dtype)
        made.add_(x)  # of the outer vmap
        return y * made.tolist()[0]

    x, y = rand(4, 3), rand(2, 3)
    with pytest.raises(RuntimeError, match="can't be read any more|reads the memory"):
        vmap(lambda x: vmap(lambda y: function(x, y))(y))(x)


def test_what_was_written_to_can_not():
    def function(x):
        made = torch.zeros(3, dtype=x.dtype)
        made.add_(x)
        return made.numpy()

    with pytest.raises(RuntimeError, match="reads the memory of a batched tensor"):
        vmap(function)(rand(4, 3))


def test_leaves_made_inside():
    def function(x):
        weight = torch.ones(3, dtype=x.dtype, requires_grad=True)
        assert weight.requires_grad and weight.is_leaf
        return (weight * x).detach()

    x = rand(4, 3)
    assert_close(vmap(function)(x), x)


def test_random_values():
    def function(x):
        out = torch.empty(1000)
        return out.normal_(), torch.empty(1000).normal_()

    first, second = vmap(function, randomness="different")(rand(3))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], second[0])
    first, _ = vmap(function, randomness="same")(rand(3))
    assert torch.equal(first[0], first[1])


def test_a_tensor_from_outside_is_not_written_to():
    outside = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="into a tensor from outside"):
        vmap(outside.add_)(rand(4, 3))
    with pytest.raises(RuntimeError, match="into a tensor from outside"):
        vmap(lambda x: outside[:2].copy_(x[:2]))(rand(4, 3))
    assert not outside.any()


@pytest.mark.parametrize(
    "same",
    [
        torch.as_tensor,
        torch.asarray,
        lambda x: x.to(x.dtype),
        lambda x: x.double(),
        lambda x: torch.from_numpy(x.numpy()),
        lambda x: torch.as_tensor(x.numpy()),
    ],
)
def test_what_shares_memory_with_a_tensor_from_outside_is_not_written_to(same):
    outside = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="into a tensor from outside"):
        vmap(lambda x: same(outside).add_(x))(rand(4, 3))
    assert not outside.any()


def test_one_kept_after_the_vmap():
    kept = []
    vmap(lambda x: (kept.append(torch.ones(3)), x)[1])(rand(2))
    assert_close(kept[0] + 1, torch.full((3,), 2.0))
    kept.clear()


def test_the_functions_stay_what_they_are():
    assert torch.zeros is torch._C._VariableFunctions.zeros
    assert torch.jit.script(lambda_free_zeros)(2).shape == (2,)


def lambda_free_zeros(n: int) -> torch.Tensor:
    return torch.zeros(n)


@pytest.mark.parametrize("write", WRITES)
def test_writes_into_what_has_the_same_tangent_for_all_samples(write):
    def function(x):
        return write(-x, x)

    x = rand(2, 4, 3)
    assert_close(vmap(vmap(jacfwd(function)))(x), vmap(vmap(jacrev(function)))(x))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_copy_of_a_shared_tensor_as_the_error_says(requires_grad):
    shared, xs = rand(3).requires_grad_(requires_grad), rand(4, 3)

    def written(x):
        out = torch.zeros_like(shared) + shared if requires_grad else shared.clone()
        return add(out, x) * x

    def computed():
        result = vmap(written)(xs)
        return torch.autograd.grad(result.sum(), shared) if requires_grad else result

    expected = xs.sum(0) if requires_grad else (shared + xs) * xs
    assert_close(computed()[0] if requires_grad else computed(), expected)


def test_a_clone_that_requires_grad_stays_in_its_graph():
    shared, xs = rand(3).requires_grad_(), rand(4, 3)

    def hooked(x):
        out = shared.clone()
        assert out.requires_grad
        out.register_hook(lambda cotangent: 2 * cotangent)
        return out * x

    assert_close(torch.autograd.grad(vmap(hooked)(xs).sum(), shared)[0], 2 * xs.sum(0))
