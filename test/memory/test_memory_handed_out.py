"""The memory of tensors made inside vmap, in the hands of NumPy, DLPack and others."""

import ctypes
import io
import pickle

import numpy as np
import pytest
import torch

from functorch_ext import jvp, vmap
from test.oracle import assert_close, loop, rand

HANDED_OUT = {
    "numpy": lambda made: made.numpy(),
    "asarray": np.asarray,
    "from_dlpack": torch.from_dlpack,
    "numpy's from_dlpack": np.from_dlpack,
    "a capsule": torch.utils.dlpack.to_dlpack,
    "untyped_storage": lambda made: made.untyped_storage(),
    "share_memory_": lambda made: made.share_memory_(),
    "of a view": lambda made: made.view(2, -1)[1].numpy(),
    "storage given to another": lambda made: torch.empty(0).set_(made.untyped_storage()),
}


@pytest.mark.parametrize("how", HANDED_OUT)
@pytest.mark.parametrize("size", [4, 1 << 20])
def test_a_write_that_they_would_not_see_raises(how, size):
    def function(x):
        made = torch.zeros(size)
        given = HANDED_OUT[how](made)
        made[0] = x
        return given

    with pytest.raises(RuntimeError, match="whose memory was handed out before"):
        vmap(function)(torch.rand(3))


@pytest.mark.parametrize("nested", [False, True])
def test_of_a_view_written_through_another(nested):
    def function(x):
        made = torch.zeros(4)
        array = made[:2].numpy()
        other = made[2:]
        other[0] = x
        return x + float(array.sum())

    transform = (lambda f: vmap(lambda x: vmap(f)(x))) if nested else vmap
    with pytest.raises(RuntimeError, match="whose memory was handed out before"):
        transform(function)(torch.rand(3, 2) if nested else torch.rand(3))


def test_shared_values_go_through():
    def function(x):
        made = torch.zeros(4)
        array = made.numpy()
        made[1] = 2.0
        array[2] = 3.0
        assert array.tolist() == [0, 2, 3, 0]
        return made * x

    x = rand(3)
    assert_close(vmap(function)(x), loop(function)(x))


def test_copies_are_nobodys():
    def function(x):
        made = torch.arange(4.0, dtype=x.dtype)
        array, numbers = made.clone().numpy(), made.tolist()
        made[0] = x
        return made + float(array.sum()) + sum(numbers)

    x = rand(3)
    assert_close(vmap(function)(x), loop(function)(x))


def test_after_the_write_there_is_nothing_to_hand_out():
    def function(x):
        made = torch.zeros(4)
        made[0] = x
        return made.untyped_storage()

    with pytest.raises(RuntimeError, match="reads the memory of a batched tensor"):
        vmap(function)(torch.rand(3))


def test_an_address_stays_valid():
    size = 1 << 20

    def function(x):
        made = torch.ones(size)
        address = made.data_ptr()
        made[0] = x
        others = [torch.full((size,), 7.0) for _ in range(4)]
        memory = (ctypes.c_float * size).from_address(address)
        assert memory[size - 1] == 1.0
        return made[0] + 0 * others[0][0]

    x = torch.rand(3)
    assert_close(vmap(function)(x), x)


def test_it_outlives_the_vmap():
    kept = []

    def function(x):
        kept.append(torch.arange(1000.0).numpy())
        return x

    vmap(function)(torch.rand(3))
    _ = [torch.rand(1000) for _ in range(10)]
    assert np.array_equal(kept[0], np.arange(1000.0))


def test_set_shares_memory():
    def function(x):
        made = torch.zeros(3, dtype=x.dtype)
        other = torch.empty(0, dtype=x.dtype).set_(made)
        made[0] = x
        other[1] = 2 * x
        return made, other.clone()

    x = rand(3)
    assert_close(vmap(function)(x), loop(function)(x))


def test_set_to_a_batched_tensor():
    def function(x):
        other = torch.empty(0, dtype=x.dtype).set_(x)
        assert other.shape == x.shape
        part = torch.empty(0, dtype=x.dtype).set_(x.clone(), 1, (2,), (1,))
        return other * 2, part.add_(1)

    x = rand(4, 3)
    assert_close(vmap(function)(x), loop(function)(x))


def test_set_of_a_tensor_from_outside_raises():
    outside = torch.empty(0)
    with pytest.raises(RuntimeError, match="a tensor from outside a transform"):
        vmap(lambda x: outside.set_(torch.zeros(3)))(torch.rand(3))


def test_saving():
    def function(x):
        made = torch.arange(3.0)
        stream = io.BytesIO()
        torch.save(made, stream)
        again = pickle.loads(pickle.dumps(made))
        made.add_(x)
        stream.seek(0)
        return made + torch.load(stream) + again

    x = torch.rand(2, 3)
    assert_close(vmap(function)(x), loop(function)(x))


@pytest.mark.parametrize("save", [pickle.dumps, lambda x: torch.save(x, io.BytesIO())])
def test_saving_what_differs_between_samples_raises(save):
    with pytest.raises(RuntimeError, match="can't be pickled or saved"):
        vmap(lambda x: (save(x), x)[1])(torch.rand(3))
    with pytest.raises(RuntimeError, match="can't be pickled or saved"):
        tangent = lambda x: jvp(lambda y: (save(y), y)[1], (x,), (x,))[1]
        jvp(tangent, (torch.rand(3),), (torch.rand(3),))
