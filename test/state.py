"""What a transform must leave as it found it, whether it returned or raised."""

import torch
import torch.autograd.forward_ad as forward_ad

import functorch_ext


def assert_clean_state():
    """Check that no level, dual level, or grad-mode change outlived its transform."""
    assert torch.is_grad_enabled(), "grad mode is still off"
    assert not torch.is_inference_mode_enabled(), "inference mode is still on"
    assert forward_ad._current_level < 0, "a dual level is still open"

    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    value, tangent = functorch_ext.jvp(torch.square, (x,), (torch.ones_like(x),))
    assert torch.equal(value, x * x) and torch.equal(tangent, 2 * x), "jvp no longer works"
    assert torch.equal(functorch_ext.vmap(torch.square)(x), x * x), "vmap no longer works"
    assert type(x + 1) is torch.Tensor and not (x + 1).requires_grad

    engine = getattr(functorch_ext, "_C", None)
    if hasattr(engine, "live_levels"):
        assert engine.live_levels() == 0, f"{engine.live_levels()} levels are still alive"
