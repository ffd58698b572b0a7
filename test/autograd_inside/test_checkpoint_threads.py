"""Backward passes in several threads at once, through checkpoints of one vmap that has returned."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch.utils.checkpoint import checkpoint

from functorch_ext import _C, vmap
from test.oracle import assert_close, rand


def body(x):
    return checkpoint(lambda x: (x.sin() * x).exp(), x, use_reentrant=False).sum()


def test_checkpoints_of_one_vmap_in_many_threads():
    inputs = [rand(3, 2).requires_grad_() for _ in range(40)]
    expected = [torch.autograd.grad((x.sin() * x).exp().sum(), x)[0] for x in inputs]

    def func(*rows):
        return tuple(body(row) for row in rows)

    for _ in range(3):
        outputs = vmap(func)(*inputs)
        with ThreadPoolExecutor(8) as pool:
            gradients = list(
                pool.map(lambda y, x: torch.autograd.grad(y.sum(), x)[0], outputs, inputs)
            )
        assert_close(gradients, expected)
    assert _C.running_level() is None


def test_checkpoints_of_nested_vmaps_in_many_threads():
    inputs = [rand(4, 3, 2).requires_grad_() for _ in range(20)]
    expected = [torch.autograd.grad((x.sin() * x).exp().sum(), x)[0] for x in inputs]
    outputs = vmap(lambda *rows: vmap(lambda *rows: tuple(map(body, rows)))(*rows))(*inputs)
    with ThreadPoolExecutor(8) as pool:
        gradients = list(pool.map(lambda y, x: torch.autograd.grad(y.sum(), x)[0], outputs, inputs))
    assert_close(gradients, expected)
