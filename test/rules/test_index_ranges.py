"""Indices of one sample never reach another sample's numbers.

Some rules join the samples in the dimension that is indexed, where an index that is out of range
for its sample would find something. It must raise there, as plain PyTorch does for the sample.
"""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from functorch_ext import grad, vjp, vmap
from test.oracle import assert_close, loop, rand

BATCH, SIZE = 3, 4
OFFSETS = torch.tensor([0, 1, 1])


def bags(mode, **options):
    return lambda x, i: F.embedding_bag(i, x, OFFSETS, mode=mode, **options)


def gradient(function):
    return lambda x, i: grad(lambda x: function(x, i).sin().sum())(x)


def of_rows(x):
    """Another number for each of the three indices, in the shape of rows of x."""
    return torch.arange(3.0, dtype=x.dtype).unsqueeze(1).expand(3, x.shape[1])


# (a function of x and three indices into the dimension of size SIZE, the shape of x)
CASES = {
    "embedding": (lambda x, i: F.embedding(i, x), (SIZE, 2)),
    "embedding, padding": (lambda x, i: F.embedding(i, x, padding_idx=1), (SIZE, 2)),
    "embedding, by frequency": (
        lambda x, i: F.embedding(i, x, scale_grad_by_freq=True),
        (SIZE, 2),
    ),
    "embedding, max_norm": (lambda x, i: F.embedding(i, x.clone(), max_norm=0.5), (SIZE, 2)),
    "embedding_bag, sum": (bags("sum"), (SIZE, 2)),
    "embedding_bag, mean": (bags("mean"), (SIZE, 2)),
    "embedding_bag, max": (bags("max"), (SIZE, 2)),
    "embedding_bag, padding": (bags("sum", padding_idx=1), (SIZE, 2)),
    "index": (lambda x, i: x[i], (SIZE, 2)),
    "index, two": (lambda x, i: x[i, i % 2], (SIZE, 2)),
    "index, apart": (lambda x, i: x[i, :, i % 2], (SIZE, 2, 2)),
    "index_put": (
        lambda x, i: x.index_put((i,), torch.ones((), dtype=x.dtype), accumulate=True),
        (SIZE, 2),
    ),
    "index_put, in place": (lambda x, i: x.clone().index_put_((i,), of_rows(x)), (SIZE, 2)),
    "take": (lambda x, i: x.take(i), (2, 2)),
    "put": (lambda x, i: x.put(i, of_rows(x)[:, 0]), (2, 2)),
    "take_along_dim": (lambda x, i: x.take_along_dim(i.unsqueeze(1), 0), (SIZE, 2)),
    "gather": (lambda x, i: x.gather(0, i.unsqueeze(1)), (SIZE, 2)),
    "scatter": (lambda x, i: x.scatter(0, i.unsqueeze(1), 0.5), (SIZE, 2)),
    "scatter_add": (lambda x, i: x.scatter_add(0, i.unsqueeze(1), of_rows(x)), (SIZE, 2)),
    "scatter_reduce": (
        lambda x, i: x.scatter_reduce(0, i.unsqueeze(1), of_rows(x), "amax"),
        (SIZE, 2),
    ),
    "index_select": (lambda x, i: x.index_select(1, i), (2, SIZE)),
    "index_add": (lambda x, i: x.index_add(0, i, of_rows(x)), (SIZE, 2)),
    "index_copy": (lambda x, i: x.index_copy(0, i, of_rows(x)), (SIZE, 2)),
    "index_reduce": (lambda x, i: x.index_reduce(0, i, of_rows(x), "amax"), (SIZE, 2)),
    "index_fill": (lambda x, i: x.index_fill(0, i, 0.5), (SIZE, 2)),
    "index_fill, tensor": (lambda x, i: x.index_fill(0, i, x[0, 0]), (SIZE, 2)),
    "index_fill, in place": (lambda x, i: x.clone().index_fill_(0, i, 0.5), (SIZE, 2)),
    "nll_loss": (lambda x, i: F.nll_loss(x, i), (3, SIZE)),
    "nll_loss, one": (lambda x, i: F.nll_loss(x, i[0]), (SIZE,)),
    "nll_loss, weights": (lambda x, i: F.nll_loss(x, i, weight=x[0].exp()), (3, SIZE)),
    "nll_loss, images": (lambda x, i: F.nll_loss(x, i.view(1, 3, 1)), (1, SIZE, 3, 1)),
    "cross_entropy": (lambda x, i: F.cross_entropy(x, i, ignore_index=1), (3, SIZE)),
    "cross_entropy, smoothed": (
        lambda x, i: F.cross_entropy(x, i, label_smoothing=0.1, weight=x[0].exp()),
        (3, SIZE),
    ),
    "multi_margin_loss": (lambda x, i: F.multi_margin_loss(x, i), (3, SIZE)),
    "max_unpool1d": (lambda x, i: F.max_unpool1d(x, i.view(1, 3), 1, output_size=(1, 4)), (1, 3)),
    "one_hot": (lambda x, i: F.one_hot(i, SIZE) * x, (SIZE,)),
}
CASES |= {
    f"gradient of {name}": (gradient(CASES[name][0]), CASES[name][1])
    for name in CASES
    if name.split(",")[0] not in {"one_hot", "index_reduce", "scatter_reduce"}
    and name not in {"embedding, max_norm", "index_fill, tensor"}
}


def outcome(function, *args):
    try:
        return function(*args), None
    except (IndexError, RuntimeError, ValueError) as error:
        return None, error


# In range, and beyond either end.
LAST = {
    "in range": [1, 3, 0],
    "negative": [1, 3, -1],
    "end": [1, 3, SIZE],
    "far": [1, 3, -SIZE - 1],
}


@pytest.mark.parametrize("last", LAST.values(), ids=LAST)
@pytest.mark.parametrize("name", CASES)
def test_one_sample_out_of_range(name, last):
    function, shape = CASES[name]
    for batched in ((True, True), (True, False), (False, True)):
        # Wrong in the sample between the others, whose numbers would be found.
        index = torch.tensor([[0, 2, 3], last, [3, 1, 1]]) if batched[1] else torch.tensor(last)
        x = rand(BATCH, *shape) if batched[0] else rand(*shape)
        in_dims = tuple(0 if each else None for each in batched)
        expected, plain_error = outcome(loop(function, in_dims), x, index)
        actual, error = outcome(vmap(function, in_dims), x, index)
        if plain_error is None:
            assert error is None, (batched, error)
            assert_close(actual, expected, message=str(batched))
        else:
            assert error is not None, f"{batched}: plain PyTorch raises {plain_error}"
            assert "INTERNAL" not in str(error)


@pytest.mark.parametrize("offsets", [[[0, 2, 5], [0, 1, 2]], [[1, 2, 2], [0, 1, 2]]])
def test_bags_beyond_their_samples(offsets):
    with pytest.raises(RuntimeError, match="offsets"):
        vmap(lambda i, o: F.embedding_bag(i, rand(SIZE, 2), o), randomness="same")(
            torch.tensor([[1, 3, 0], [0, 2, 3]]), torch.tensor(offsets)
        )


def test_of_nested_samples():
    tables = rand(2, 3, SIZE, 2)
    indices = torch.randint(SIZE, (2, 3, 5))
    function = vmap(vmap(lambda w, i: F.embedding(i, w)))
    expected = loop(loop(lambda w, i: F.embedding(i, w)))(tables, indices)
    assert_close(function(tables, indices), expected)
    indices[1, 0, 2] = SIZE
    with pytest.raises(IndexError, match="out of range in self: expected numbers from 0 to 3"):
        function(tables, indices)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_while_recorded(mode):
    """The check is not part of what is recorded, and doesn't need numbers."""
    function = vmap(lambda w, i: F.embedding(i, w))
    tables, indices = rand(2, SIZE, 2), torch.randint(SIZE, (2, 5))
    recorded = make_fx(function, tracing_mode=mode)(tables, indices)
    names = [str(node.target) for node in recorded.graph.nodes]
    assert not any("assert" in name or "aminmax" in name for name in names)
    assert_close(recorded(tables, indices), function(tables, indices))


def test_without_numbers():
    with FakeTensorMode():
        table, indices = torch.empty(2, SIZE, 2), torch.empty(2, 5, dtype=torch.int64)
        assert vmap(lambda w, i: F.embedding(i, w))(table, indices).shape == (2, 5, 2)


def test_views_by_strides():
    """They stay in the memory of their sample, all of which a view of a part may reach."""
    x = rand(3, 4)
    assert_close(vmap(lambda x: x.as_strided((2, 3), (1, 1)))(x), x.unfold(1, 3, 1))
    assert_close(vmap(lambda x: x[2:].as_strided((4,), (1,), 0))(x), x)
    for size, stride, offset in (((5,), (1,), 0), ((2, 2), (3, 1), 0), ((4,), (1,), 1)):
        with pytest.raises(RuntimeError, match="reach beyond one sample"):
            vmap(torch.as_strided, (0, None, None, None))(x, size, stride, offset)


# Of (C, ...) and of (N, C, ...): with the indices of their largest elements.
POOLS = {
    "max_pool2d": (2, lambda x: F.max_pool2d(x, 2, return_indices=True)),
    "max_pool3d": (3, lambda x: F.max_pool3d(x, 2, return_indices=True)),
    "adaptive_max_pool2d": (2, lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True)),
    "adaptive_max_pool3d": (3, lambda x: F.adaptive_max_pool3d(x, 2, return_indices=True)),
}


@pytest.mark.parametrize("leading", [(2,), (1, 2)])
@pytest.mark.parametrize("name", POOLS)
def test_places_that_all_samples_share(name, leading):
    """Kernels read them in the order of memory; expanded over the samples they have no memory."""
    rank, pool = POOLS[name]
    x = rand(*leading, *[4] * rank)
    cotangents = rand(BATCH, *pool(x)[0].shape)
    pullback = vjp(lambda x: pool(x)[0], x)[1]
    assert_close(vmap(pullback)(cotangents), loop(pullback)(cotangents))

    def twice(cotangent):
        return vjp(lambda x: vjp(lambda x: pool(x)[0].sin(), x)[1](cotangent)[0], x)[1](x)

    assert_close(vmap(twice)(cotangents), loop(twice)(cotangents))


def test_places_that_lie_apart():
    x, cotangent = rand(2, 4, 4, 4), rand(2, 2, 2, 2)
    places = torch.stack(
        [F.adaptive_max_pool3d(rand(2, 4, 4, 4), 2, True)[1] for _ in range(2)], -1
    )
    backward = torch.ops.aten.adaptive_max_pool3d_backward.default
    in_dims = (None, None, -1)
    args = (cotangent, x, places)
    assert_close(vmap(backward, in_dims)(*args), loop(backward, in_dims)(*args))


@pytest.mark.parametrize("dtypes", [(torch.int64, torch.int32), (torch.int32, torch.int64)])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_by_integers_of_two_dtypes(mode, dtypes):
    table = rand(SIZE, 2)
    indices = torch.randint(SIZE, (BATCH, 5), dtype=dtypes[0])
    offsets = torch.tensor([[0, 2, 5], [0, 0, 3], [0, 4, 4]], dtype=dtypes[1])

    def function(i, o):
        return F.embedding_bag(i, table, o, mode=mode)

    assert_close(vmap(function)(indices, offsets), loop(function)(indices, offsets))


@pytest.mark.parametrize("as_list", [True, False])
def test_classes_of_ctc_loss(as_list):
    """PyTorch reads beyond the classes. What pads a shorter target doesn't count."""
    scores = rand(BATCH, 6, 2, SIZE).log_softmax(-1)
    targets = torch.tensor([[[1, 2, 3], [3, 1, 99]], [[2, 2, 1], [1, 3, -5]], [[1, 3, 2]] * 2])
    lengths = ([6, 6], [3, 2]) if as_list else (torch.tensor([6, 6]), torch.tensor([3, 2]))

    def loss(scores, targets):
        return F.ctc_loss(scores, targets, *lengths)

    assert_close(vmap(loss)(scores, targets), loop(loss)(scores, targets))
    for position in ((0, 0, 2), (1, 1, 0)):
        wrong = targets.clone()
        wrong[position] = SIZE
        with pytest.raises(IndexError, match="expected targets from 0 to 3"):
            vmap(loss)(scores, wrong)
