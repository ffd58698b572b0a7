"""What a function sees that only some of the samples call."""

import pytest
import torch
from torch import cond, while_loop  # bound before any transform runs

import functorch_ext as ft
from test import oracle

NUMBERS = torch.tensor([-2.0, -0.5, 0.5, 3.0], dtype=torch.float64)


def compare(function, plain, *args, in_dims=0):
    oracle.assert_close(ft.vmap(function, in_dims)(*args), oracle.loop(plain, in_dims)(*args))


def test_one_branch_where_all_agree():
    """The other isn't called."""
    called = []
    record = lambda name: lambda x: called.append(name) or x.sin()
    x = NUMBERS.abs()
    oracle.assert_close(
        ft.vmap(lambda x: cond(x > 0, record(True), record(False), (x,)))(x), x.sin()
    )
    assert called == [True]


def test_empty_batch():
    """No sample takes either branch; the shape is what they return."""
    empty = torch.zeros(0, 3)
    found = ft.vmap(lambda x: cond(x.sum() > 0, lambda x: x[:2], lambda x: x[1:], (x,)))(empty)
    assert found.shape == (0, 2)
    (found,) = ft.vmap(lambda x: while_loop(lambda x: x.sum() > 0, lambda x: (x - 1,), (x,)))(empty)
    assert found.shape == (0, 3)


def test_a_branch_raises_for_others():
    """A matrix of a sample that takes the other branch isn't decomposed."""
    matrices = torch.stack([torch.eye(2), -torch.eye(2), 3 * torch.eye(2)])
    found = ft.vmap(lambda m: cond(m[0, 0] > 0, torch.linalg.cholesky, lambda m: m * 2, (m,)))
    plain = lambda m: torch.linalg.cholesky(m) if m[0, 0] > 0 else m * 2
    oracle.assert_close(found(matrices), oracle.loop(plain)(matrices))


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_infinite_derivatives_of_shared_weights(mode):
    """A weight's derivative sums over samples: those of the other branch take no part."""

    def function(weight):
        def of_sample(x):
            return cond(x > 0, lambda: (weight * x).log(), lambda: weight * (-x).sqrt() * x, ())

        return ft.vmap(of_sample)(NUMBERS).sum()

    def plain(weight):
        return sum((weight * x).log() if x > 0 else weight * (-x).sqrt() * x for x in NUMBERS)

    weight = torch.tensor(1.5, dtype=torch.float64)
    if mode == "reverse":
        oracle.assert_close(ft.grad(function)(weight), oracle.grad(plain)(weight))
    else:
        found = ft.jvp(function, (weight,), (weight,))
        oracle.assert_close(found, oracle.jvp(plain, weight, weight))


def test_infinite_derivative_that_is_taken():
    """Where a sample's own derivative is infinite, the others' are as they were."""
    x = torch.tensor([0.0, 4.0, -1.0], dtype=torch.float64)
    root = lambda x: cond(x >= 0, lambda x: x.sqrt(), lambda x: x * 3, (x,))
    oracle.assert_close(
        ft.vmap(ft.grad(root))(x), torch.tensor([torch.inf, 0.25, 3.0], dtype=torch.float64)
    )


def test_closures_used_in_every_way():
    """By an index, in a list, through a module, a view, an inner vmap and an inner gradient."""
    linear = torch.nn.Linear(3, 3, dtype=torch.float64)
    xs = oracle.rand(5, 3)

    def positive(x):
        picked = (x[0] - x.sum().detach() * 0) * x[1:].log()
        joined = torch.cat([x.log()[:1], picked, linear(x)])
        return joined, ft.vmap(torch.log)(x), ft.grad(lambda y: y.sqrt().sum())(x)

    def other(x):
        return torch.cat([x.sin(), linear(-x)]), x.cos(), x * 2

    def total(parts):
        return sum(part.sum() for part in parts)

    function = lambda x: total(cond((x > 0).all(), lambda: positive(x), lambda: other(x), ()))

    def plain(x):
        if not (x > 0).all():
            return total(other(x))
        picked = x[0] * x[1:].log()
        joined = torch.cat([x.log()[:1], picked, linear(x)])
        return total((joined, x.log(), 0.5 / x.sqrt()))

    xs[::2] = xs[::2].abs()
    compare(ft.grad(function), oracle.grad(plain), xs)


def test_custom_functions_and_checkpoints():
    """They are called inside a branch as anywhere."""

    class Log(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.log()

        @staticmethod
        def backward(ctx, cotangent):
            return cotangent / ctx.saved_tensors[0]

    checkpoint = torch.utils.checkpoint.checkpoint

    def function(x):
        inside = lambda: Log.apply(x) + checkpoint(torch.sqrt, x, use_reentrant=False)
        return cond(x > 0, inside, lambda: x * 2, ())

    compare(
        ft.grad(function), oracle.grad(lambda x: x.log() + x.sqrt() if x > 0 else x * 2), NUMBERS
    )


def test_writes_belong_to_the_samples_of_a_branch():
    """A tensor from outside of the branch is written to where the branch is taken."""

    def function(x):
        buffer = x.clone()
        result = cond(x > 0, lambda: buffer.mul_(10), lambda: buffer + 1, ())
        return result, buffer

    def plain(x):
        buffer = x.clone()
        return (buffer.mul_(10) if x > 0 else buffer + 1), buffer

    with torch.no_grad():
        found, expected = ft.vmap(function)(NUMBERS), oracle.loop(plain, 0, (0, 0))(NUMBERS)
    oracle.assert_close(found, expected)


def test_numbers_that_differ_become_tensors():
    """An int is one for all samples, unless they disagree."""
    found = ft.vmap(lambda x: cond(x > 0, lambda x: 3, lambda x: 4, (x,)))(NUMBERS)
    assert found.tolist() == [4, 4, 3, 3]
    count = lambda x: while_loop(lambda i, x: x < 2, lambda i, x: (i + 1, x + 1), (0, x))[0]
    assert ft.vmap(count)(NUMBERS).tolist() == [4, 3, 2, 0]


def test_random_numbers():
    """Each sample draws its own, in the loop as in the branch."""
    draw = lambda x: cond(x > 0, lambda: torch.randn(2), lambda: torch.zeros(2), ())
    found = ft.vmap(draw, randomness="different")(NUMBERS)
    assert (found[:2] == 0).all() and found[2:].unique().numel() == 4


def test_a_bound_of_an_outer_vmap():
    """The inner samples run as often as their outer sample wants."""

    def function(x, y):
        return while_loop(lambda i, y: i < x, lambda i, y: (i + 1, y * 1.5), (x * 0, y))[1]

    def plain(x, y):
        for _ in range(int(x)):
            y = y * 1.5
        return y

    bounds, y = torch.tensor([2, 0, 5]), oracle.rand(4)
    oracle.assert_close(
        ft.vmap(ft.vmap(function, (None, 0)), (0, None))(bounds, y),
        oracle.loop(oracle.loop(plain, (None, 0)), (0, None))(bounds, y),
    )


def test_programs_without_transforms_are_compiled_as_before():
    """PyTorch's own function is called."""
    x = torch.tensor(2.0)
    oracle.assert_close(cond(x > 0, lambda x: x.sin(), lambda x: x.cos(), (x,)), x.sin())


def test_in_a_thread_of_a_vmap():
    """A thread has no transform of its own, but may be given tensors of one."""
    import threading

    found = {}

    def function(x):
        def run():
            found["result"] = cond(x > 0, lambda x: x.sin(), lambda x: x.cos(), (x,))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return found.pop("result")

    compare(function, lambda x: x.sin() if x > 0 else x.cos(), NUMBERS)
