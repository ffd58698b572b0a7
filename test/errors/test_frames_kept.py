"""What Python keeps of a transform that is over, as a traceback does, can be used without harm."""

import pytest
import torch

from functorch_ext import _C, vmap
from test.oracle import assert_close

X = torch.arange(6.0).reshape(3, 2)


def locals_of(error):
    """The variables of all Python frames of a traceback."""
    found, traceback = {}, error.__traceback__
    while traceback is not None:
        found |= traceback.tb_frame.f_locals
        traceback = traceback.tb_next
    return found


def test_the_level_of_a_vmap_that_raised():
    with pytest.raises(ValueError, match="only return Tensors") as raised:
        vmap(lambda x: (x, "text"))(X)
    level = locals_of(raised.value)["level"]
    assert level.batch_size == 3
    assert_close(level.stacked(level.wrap(X, 0), 1), X.T)
    with pytest.raises(RuntimeError, match="outlived its vmap"):
        level.wrap(X, 0) + 1
    raised.value.with_traceback(None)


def test_the_frame_of_a_derivative():
    kept = []
    _C.run_reverse(lambda frame: kept.append((frame, frame.differentiable([X]))))
    ((frame, (x,)),) = kept
    with pytest.raises(RuntimeError, match="after the transform had ended"):
        frame.differentiable([X])
    # This is what a pullback does.
    (gradient,) = frame.pull_back([x.sin()], [torch.ones_like(X)], False)
    assert_close(gradient, X.cos())


def test_the_frame_of_a_jvp():
    kept = []
    _C.run_forward(lambda frame: kept.append((frame, frame.make_dual([X], [X])[0])), [X])
    ((frame, dual),) = kept
    for use in (lambda: frame.make_dual([X], [X]), lambda: frame.unpack(dual)):
        with pytest.raises(RuntimeError, match="after the transform had ended"):
            use()
    assert_close(dual + 1, X + 1)


def test_the_frame_of_functionalize():
    kept = []
    _C.run_functional(lambda frame: kept.append((frame, frame.wrap(X))), False)
    ((frame, x),) = kept
    with pytest.raises(RuntimeError, match="after the transform had ended"):
        frame.wrap(X)
    assert_close(x + 1, X + 1)
