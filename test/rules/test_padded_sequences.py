"""Sequences of several lengths in one tensor."""

import pytest
import torch
from torch.nn.utils import rnn

from functorch_ext import grad, jvp, vmap
from test import oracle
from test.oracle import assert_close, loop, rand


def parts(x):
    return [x[:, 0], x[:3, 1], 2 * x[1:2, 0]]


PADDED = {
    "pad_sequence": lambda x: rnn.pad_sequence(parts(x)),
    "batch first": lambda x: rnn.pad_sequence(parts(x), batch_first=True, padding_value=2.5),
    "on the left": lambda x: rnn.pad_sequence(parts(x), padding_side="left"),
    "pack_sequence": lambda x: rnn.pack_sequence(parts(x)).data,
    "one shared": lambda x: rnn.pad_sequence([x[:, 0], torch.ones(2, 3, dtype=x.dtype)]),
    "vectors": lambda x: rnn.pad_sequence([x[:, 0, 0], x[:2, 0, 0]]),
}


@pytest.mark.parametrize("function", PADDED.values(), ids=PADDED)
def test_padded(function):
    x = rand(3, 5, 2, 3)
    assert_close(vmap(function)(x), loop(function)(x))
    assert_close(vmap(vmap(function))(x[None]), loop(function)(x)[None])
    loss = lambda x: function(x).sin().sum()
    assert_close(vmap(grad(loss))(x), loop(oracle.grad(loss))(x))
    push = lambda x: jvp(function, (x,), (x.cos(),))[1]
    assert_close(vmap(push)(x), loop(lambda x: oracle.jvp(function, x, x.cos())[1])(x))


def test_what_a_sample_refuses_is_refused():
    with pytest.raises(RuntimeError, match="size"):
        vmap(lambda x: rnn.pad_sequence([x, x[:, :2]]))(rand(3, 4, 3))
