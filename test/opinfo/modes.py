"""What is mapped: the operator itself, its pullback, its pushforward; by PyTorch and by us."""

import torch
import torch.autograd.forward_ad as forward_ad

from functorch_ext import jvp, vjp

NOT_DIFFERENTIABLE = "it is not differentiable, says the database"


def cotangent(output):
    """Different in every place and sample, and no less exact than the output where that is big."""
    return (output / (1 + output.abs())).cos()


def of_differentiable(p, values):
    def function(*inputs):
        full = list(values)
        for position, value in zip(p.differentiable, inputs, strict=True):
            full[position] = value
        return p.processed(*full)

    return function, tuple(values[i] for i in p.differentiable)


def plain_vjp(p):
    def pulled_back(*values):
        function, inputs = of_differentiable(p, values)
        inputs = [x.detach().clone().requires_grad_() for x in inputs]
        outputs = [output for output in function(*inputs) if output.requires_grad]
        if not outputs:
            raise NotImplementedError("no output is differentiable")
        cotangents = [cotangent(output.detach()) for output in outputs]
        found = torch.autograd.grad(outputs, inputs, cotangents, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]

    return pulled_back


def our_vjp(p):
    def pulled_back(*values):
        function, inputs = of_differentiable(p, values)
        outputs, pullback = vjp(function, *inputs)
        return list(pullback([cotangent(output) for output in outputs]))

    return pulled_back


def plain_jvp(p):
    def pushed(*values):
        function, inputs = of_differentiable(p, values)
        with forward_ad.dual_level():
            outputs = function(*(forward_ad.make_dual(x.clone(), x.cos()) for x in inputs))
            pairs = [forward_ad.unpack_dual(output) for output in outputs]
            return [torch.zeros_like(p.primal) if p.tangent is None else p.tangent for p in pairs]

    return pushed


def our_jvp(p):
    def pushed(*values):
        function, inputs = of_differentiable(p, values)
        return jvp(function, inputs, tuple(x.cos() for x in inputs))[1]

    return pushed


class Mode:
    """`levels` vmaps around what PyTorch does by `plain` and we do by `ours`."""

    def __init__(self, levels, plain, ours):
        self.levels, self.plain, self.ours = levels, plain, ours

    def missing(self, op, p):
        """Why the mode does not apply to a problem of the operator, or None."""
        if self.plain is plain_vjp and not op.supports_autograd:
            return NOT_DIFFERENTIABLE
        if self.plain is plain_jvp and not op.supports_forward_ad:
            return NOT_DIFFERENTIABLE
        if self.plain is not forward and not p.differentiable:
            return NOT_DIFFERENTIABLE
        return None


def forward(p):
    return p.function


MODES = {
    "vmap": Mode(1, forward, forward),
    "vmap(vmap)": Mode(2, forward, forward),
    "vjp": Mode(0, plain_vjp, our_vjp),
    "jvp": Mode(0, plain_jvp, our_jvp),
    "vmap(vjp)": Mode(1, plain_vjp, our_vjp),
    "vmap(jvp)": Mode(1, plain_jvp, our_jvp),
}
