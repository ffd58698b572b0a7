"""Per-sample gradients of a model, against a loop with `backward`."""

import torch

from functorch_ext import functional_call, grad, vmap


def assert_per_sample_gradients(model, loss, *batch, tolerance=1e-5):
    """`loss(call, *sample)` calls the model through `call`."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def of_sample(parameters, *sample):
        def call(*args, **kwargs):
            return functional_call(model, (parameters, buffers), args, kwargs)

        return loss(call, *sample)

    gradients = vmap(grad(of_sample), (None,) + (0,) * len(batch))(parameters, *batch)
    for i, sample in enumerate(zip(*batch, strict=True)):
        model.zero_grad()
        loss(model, *sample).backward()
        for name, p in model.named_parameters():
            expected = torch.zeros_like(p) if p.grad is None else p.grad
            torch.testing.assert_close(
                gradients[name][i], expected, atol=tolerance, rtol=tolerance, msg=name
            )
