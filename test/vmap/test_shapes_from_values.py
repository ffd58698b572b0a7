"""Operators whose result has a shape that depends on values: an answer where the samples agree."""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import grad, jvp, vmap
from test import oracle
from test.oracle import assert_close, loop, rand

AGREED = torch.tensor([[1, 3], [1, 3], [1, 3]])
DIFFERENT = torch.tensor([[1, 3], [3, 1], [2, 4]])


def pack(x, lengths):
    return torch._VF._pack_padded_sequence(x, lengths, False)[0]


@pytest.mark.parametrize(
    ("function", "shape", "numbers"),
    [
        (lambda x, n: x.tensor_split(n)[1], (3, 5), AGREED),
        (lambda x, n: pack(x, n.flip(0)), (3, 3, 2, 4), AGREED),
        (lambda x, n: torch.bincount(n, x), (3, 2), torch.tensor([[1, 4], [4, 0], [4, 4]])),
        (
            lambda x, n: F.one_hot(n) * x.unsqueeze(-1),
            (3, 2),
            torch.tensor([[1, 2], [2, 0], [2, 2]]),
        ),
        (lambda x, n: x.repeat_interleave(n), (3, 2), torch.tensor([[1, 3], [4, 0], [2, 2]])),
    ],
    ids=["tensor_split", "pack", "bincount", "one_hot", "repeat_interleave"],
)
def test_agreement(function, shape, numbers):
    x = rand(*shape)
    assert_close(vmap(function)(x, numbers), loop(function, (0, 0))(x, numbers))


@pytest.mark.parametrize(
    ("function", "numbers"),
    [
        (lambda x, n: torch.cat(x.sin().tensor_split(n)[::-1]), AGREED),
        (lambda x, n: x.sin().narrow(0, n[0], 2), DIFFERENT),
    ],
    ids=["tensor_split", "narrow"],
)
def test_inside_forward_mode_of_forward_mode(function, numbers):
    x = rand(3, 6)

    def twice(jvp):
        once = lambda f: lambda x: jvp(f, x)
        return lambda x, n: once(once(lambda x: function(x, n)))(x)

    ours = twice(lambda f, x: jvp(f, (x,), (x.cos(),))[1])
    plain = twice(lambda f, x: oracle.jvp(f, x, x.cos())[1])
    assert_close(vmap(ours)(x, numbers), loop(plain, (0, 0))(x, numbers))


@pytest.mark.parametrize(
    ("function", "shape", "message"),
    [
        (lambda x, n: x.tensor_split(n), (3, 5), "tensor_split depend on the data"),
        (lambda x, n: pack(x, n.sort(descending=True)[0]), (3, 4, 2, 4), "lengths differ"),
        (lambda x, n: torch.bincount(n * n), (3, 2), "bincount depends on the data .* minlength"),
        (lambda x, n: F.one_hot(n), (3, 2), "one_hot depends on the data.* Give num_classes"),
        (lambda x, n: x.repeat_interleave(n), (3, 2), "repeat_interleave depends on the data"),
        (lambda x, n: x[n > 1], (3, 2), r"aten::index: .* Use torch.where\(mask, x, fill\)"),
        (lambda x, n: x.masked_select(n > 1), (3, 2), "masked_select depends on the data"),
        (lambda x, n: x.to_sparse(), (3, 2), r"call to_sparse\(\) on the result of vmap"),
        (lambda x, n: F.one_hot(n, 3), (3, 2), "smaller than num_classes"),
        (lambda x, n: x.narrow(0, n[1], 2), (3, 5), "narrow: start and length reach beyond"),
    ],
)
def test_disagreement(function, shape, message):
    with pytest.raises(RuntimeError, match=message):
        vmap(function)(rand(*shape), DIFFERENT)


def test_gradient_scaled_by_frequency():
    """As documented; PyTorch's kernel for CPU divides by the count of another row."""
    weight, indices = rand(6, 2), torch.randint(6, (3, 9))

    def total(weight, indices):
        bags = F.embedding_bag(indices, weight, torch.tensor([0, 4]), scale_grad_by_freq=True)
        return bags.sum()

    def expected(indices):
        sizes = torch.tensor([4.0] * 4 + [5.0] * 5, dtype=torch.float64)
        counts = indices.bincount(minlength=6)
        shares = torch.zeros(6, dtype=torch.float64).index_add(0, indices, 1 / sizes)
        return (shares / counts.clamp(min=1)).unsqueeze(1).expand(6, 2)

    actual = vmap(grad(total), (None, 0))(weight, indices)
    assert_close(actual, torch.stack([expected(row) for row in indices]))


def test_masks_without_dimensions():
    """Such a mask takes all of a tensor or nothing, along a new dimension."""
    xs = rand(4)

    def written(x):
        out = torch.ones((), dtype=torch.float64)
        out[out > 0.5] = x
        x = x.clone()
        x[x > 0] = 2.0
        return out, x

    def of_rows(x):
        rows = torch.ones(2, 3, dtype=torch.float64)
        rows[torch.tensor(False)] = 5.0
        rows[0, torch.tensor(True)] = x
        return (
            rows,
            rows[torch.tensor(True)],
            rows[torch.tensor(False)],
            rows[:, torch.tensor(True)],
        )

    for function in (written, of_rows):
        assert_close(vmap(function)(xs), loop(function)(xs))
    assert_close(vmap(lambda x: grad(lambda y: written(y)[0] * x)(x))(xs), xs)
    with pytest.raises(RuntimeError, match="boolean mask that differs between samples"):
        vmap(lambda x: x[x > 0])(torch.tensor([1.0, -1.0, 2.0]))


MASKS = torch.tensor([[True, False, True], [True, True, False], [False, True, True]])


def replace_under_mask(x, m):
    y = x.sin() * m
    y[m] = x[m].cos() * torch.arange(1.0, 3.0, dtype=x.dtype)
    return y


@pytest.mark.parametrize("in_dims", [(0, 0), (None, 0), (1, 1)])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, m: x[m],
        lambda x, m: x[m].cumsum(0) * x[m],
        lambda x, m: x.masked_select(m).cumsum(0),
        replace_under_mask,
    ],
    ids=["index", "index twice", "masked_select", "index_put"],
)
def test_masks_that_select_as_many_in_each_sample(function, in_dims):
    x = rand(3) if in_dims[0] is None else rand(3, 3)
    masks = MASKS.T if in_dims[1] else MASKS
    assert_close(vmap(function, in_dims)(x, masks), loop(function, in_dims)(x, masks))
    total = lambda x, m: function(x, m).square().sum()
    expected = loop(oracle.grad(total), in_dims)(x, masks)
    assert_close(vmap(grad(total), in_dims)(x, masks), expected)


def test_masks_of_rows_in_nested_vmaps():
    x, masks = rand(2, 3, 3, 4), MASKS.expand(2, 3, 3).clone()
    nested = vmap(vmap(lambda x, m: x[m]))(x, masks)
    assert_close(nested, loop(loop(lambda x, m: x[m], (0, 0)), (0, 0))(x, masks))
