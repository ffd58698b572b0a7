"""What a transform must leave as it found it, whether it returned or raised."""

import gc

import expecttest
import torch
import torch.autograd.forward_ad as forward_ad

import functorch_ext


def live_levels():
    """How many levels exist: those that run, and those that some tensor still belongs to."""
    engine = getattr(functorch_ext, "_C", None)
    return engine.live_levels() if engine else 0


def assert_clean_state(levels_before=0):
    """Check that no level, dual level, or grad-mode change outlived its transform."""
    assert torch.is_grad_enabled(), "grad mode is still off"
    assert not torch.is_inference_mode_enabled(), "inference mode is still on"
    assert forward_ad._current_level < 0, "a dual level is still open"

    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    value, tangent = functorch_ext.jvp(torch.square, (x,), (torch.ones_like(x),))
    assert torch.equal(value, x * x) and torch.equal(tangent, 2 * x), "jvp no longer works"
    assert torch.equal(functorch_ext.vmap(torch.square)(x), x * x), "vmap no longer works"
    assert type(x + 1) is torch.Tensor and not (x + 1).requires_grad

    if live_levels() > levels_before:
        gc.collect()  # tracebacks hold frames, and frames hold tensors, in cycles
    assert live_levels() <= levels_before, f"{live_levels()} levels are still alive"


def failure(function, error_type):
    """The message of the error that function() has to raise; the state has to be as before."""
    levels_before = live_levels()
    try:
        function()
    except error_type as error:
        message = str(error)
        error.with_traceback(None)
    else:
        raise AssertionError(f"no error was raised, instead of {error_type}")
    assert_clean_state(levels_before)
    return message


def assert_failure(function, error_type, expected):
    """Check the whole message of the error that function() has to raise, and the state after it.

    `expected` has to be a triple-quoted string: EXPECTTEST_ACCEPT=1 writes the actual message to it.
    """
    expecttest.assert_expected_inline(failure(function, error_type), expected, skip=1)
