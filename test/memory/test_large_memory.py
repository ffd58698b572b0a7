"""Gradients of all samples that are large enough for large pages, and for those of freed ones."""

import sys

import pytest
import torch
from torch.autograd.profiler import profile

from functorch_ext import grad, vmap

SIZE = 1024  # 4 samples' gradients of a weight: 16 MiB


@pytest.fixture
def gradients():
    weight = torch.randn(SIZE, SIZE)
    loss = lambda weight, x: (x @ weight).square().sum()
    return lambda x: vmap(grad(loss), (None, 0))(weight, x), lambda x: torch.stack(
        [2 * sample.T @ (sample @ weight) for sample in x]
    )


def test_results_do_not_share_memory(gradients):
    ours, by_hand = gradients
    inputs = [torch.randn(4, 2, SIZE) for _ in range(4)]
    results = [ours(x) for x in inputs]
    for x, result in zip(inputs, results):
        torch.testing.assert_close(result, by_hand(x), rtol=1e-3, atol=1e-2)
    del result, results[0], results[0]
    again = [ours(x) for x in inputs]
    assert len({one.data_ptr() for one in results + again}) == 6
    for x, result in zip(inputs[2:] + inputs, results + again):
        torch.testing.assert_close(result, by_hand(x), rtol=1e-3, atol=1e-2)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is freed as usual")
def test_memory_of_freed_ones_is_used_again(gradients):
    x = torch.randn(4, 2, SIZE)
    address = gradients[0](x).data_ptr()
    assert gradients[0](x).data_ptr() == address


def test_the_profiler_sees_them(gradients):
    x = torch.randn(4, 2, SIZE)
    gradients[0](x)
    with profile(profile_memory=True, use_kineto=True) as profiler:
        result = gradients[0](x)
        size = result.nbytes
        del result
    held = [e.nbytes() for e in profiler.kineto_results.events() if e.name() == "[memory]"]
    assert size in held and -size in held and sum(held) == 0


def test_they_can_be_resized_and_outlive_what_they_are_of(gradients):
    result = gradients[0](torch.randn(4, 2, SIZE))
    expected = result.flatten()[:10].clone()
    storage = result.untyped_storage()
    del result
    storage.resize_(storage.nbytes() * 2)
    storage.resize_(40)
    kept = torch.empty(0).set_(storage, 0, (10,))
    torch.testing.assert_close(kept, expected, rtol=0, atol=0)
