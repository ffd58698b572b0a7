"""Copies, and new tensors in the image of another, have the strides that a sample's would have."""

import pytest
import torch

from functorch_ext import grad, vmap

SAMPLES = 5
LAYOUTS = {
    "contiguous": torch.randn,
    "transposed": lambda shape: torch.randn(shape[::-1]).permute(3, 2, 1, 0),
    "expanded": lambda shape: torch.randn([1, *shape[1:]]).expand(shape),
    "sliced": lambda shape: torch.randn([*shape[:3], 2 * shape[3]])[..., ::2],
}
COPIES = {
    "clone": torch.clone,
    "clone, contiguous": lambda x: x.clone(memory_format=torch.contiguous_format),
    "contiguous": lambda x: x.contiguous(),
    "to": lambda x: x.to(torch.float64),
    "to, copy": lambda x: x.to(x.dtype, copy=True),
    "double": torch.Tensor.double,
    "of a transposition": lambda x: x.transpose(0, 1).clone(),
    "of a detached tensor": lambda x: x.detach().clone(),
    "zeros_like": torch.zeros_like,
    "ones_like": torch.ones_like,
    "empty_like": torch.empty_like,
    "full_like": lambda x: torch.full_like(x, 2.0),
}


def strides_of(copy, into):
    def noting(x):
        result = copy(x)
        into.append((result.stride(), result.is_contiguous()))
        return result

    return noting


@pytest.mark.parametrize("in_dim", range(3))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", COPIES)
def test_strides_of_a_sample(name, layout, in_dim):
    shape = [3, 4, 2]
    shape.insert(in_dim, SAMPLES)
    x = LAYOUTS[layout](shape)
    of_sample, inside = [], []
    expected = strides_of(COPIES[name], of_sample)(x.select(in_dim, 0))
    actual = vmap(strides_of(COPIES[name], inside), in_dim)(x)
    if layout == "expanded":  # only that much is sure: where memory has no order, any will do
        assert inside[0][1] == of_sample[0][1]
    else:
        assert inside == of_sample
    if name != "empty_like":
        torch.testing.assert_close(actual[0], expected)


def test_a_copy_can_be_viewed():
    x = torch.randn(3, SAMPLES, 4)
    assert torch.equal(vmap(lambda x: x.clone().view(-1), 1)(x), x.transpose(0, 1).flatten(1))
    x = torch.randn(2, 3, SAMPLES, 4)
    twice = vmap(vmap(lambda x: x.clone().view(-1), 1), 2)(x)
    assert torch.equal(twice, x.permute(2, 1, 0, 3).flatten(2))


def test_writes_through_a_view_of_a_copy():
    def func(x):
        copy = x.clone()
        copy.view(-1)[1:].mul_(2)
        return (copy * x).sum()

    x = torch.randn(2, SAMPLES, 3, dtype=torch.float64)
    expected = torch.stack([grad(func)(x.select(1, i)) for i in range(SAMPLES)], 1)
    torch.testing.assert_close(vmap(grad(func), 1, 1)(x), expected)
