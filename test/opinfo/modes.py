"""What is mapped: the operator itself, or transforms of it; by PyTorch and by us."""

import torch
import torch.autograd.forward_ad as forward_ad

from functorch_ext import jvp, vjp

NOT_DIFFERENTIABLE = "it is not differentiable, says the database"
NOT_TWICE = "it is not differentiable twice, says the database"


def cotangent(output):
    """Different in every place and sample, and no less exact than the output where that is big."""
    output = output.detach()
    return (output / (1 + output.abs())).cos()


def gradients(outputs, inputs, cotangents):
    """As torch.autograd.grad; zeros where an output does not depend on an input."""
    pairs = [(x, y) for x, y in zip(outputs, cotangents, strict=True) if x.requires_grad]
    if not pairs:
        return [torch.zeros_like(x) for x in inputs]
    options = {"create_graph": True, "materialize_grads": True}
    outputs, cotangents = zip(*pairs)
    return list(torch.autograd.grad(outputs, inputs, cotangents, **options))


def plain_vjp(function):
    def pulled_back(*inputs):
        inputs = [x if x.requires_grad else x.clone().requires_grad_() for x in inputs]
        outputs = function(*inputs)
        return gradients(outputs, inputs, [cotangent(output) for output in outputs])

    return pulled_back


def our_vjp(function):
    def pulled_back(*inputs):
        outputs, pullback = vjp(function, *inputs)
        return list(pullback([cotangent(output) for output in outputs]))

    return pulled_back


def plain_jvp(function):
    def pushed(*inputs):
        with forward_ad.dual_level():
            outputs = function(*(forward_ad.make_dual(x.clone(), x.cos()) for x in inputs))
            pairs = [forward_ad.unpack_dual(output) for output in outputs]
            return [torch.zeros_like(p.primal) if p.tangent is None else p.tangent for p in pairs]

    return pushed


def jvp_by_vjps(function):
    """The derivative of the pullback, which is linear, by its cotangents.

    Unlike PyTorch's forward mode it can be differentiated again.
    """

    def pushed(*inputs):
        inputs = [x if x.requires_grad else x.clone().requires_grad_() for x in inputs]
        outputs = function(*inputs)
        cotangents = [torch.zeros_like(output, requires_grad=True) for output in outputs]
        pulled = gradients(outputs, inputs, cotangents)
        return gradients(pulled, cotangents, [x.cos() for x in inputs])

    return pushed


def jvp_by_differences(function):
    """For what PyTorch can't differentiate so often; exact to about 1e-9 in smooth places."""
    step = 1e-5

    def pushed(*inputs):
        inputs = [x if x.requires_grad else x.clone().requires_grad_() for x in inputs]
        tangents = [x.cos() for x in inputs]
        ahead = function(*(x + step * t for x, t in zip(inputs, tangents)))
        behind = function(*(x - step * t for x, t in zip(inputs, tangents)))
        return [
            (x - y) / (2 * step) if x.requires_grad else torch.zeros_like(x)
            for x, y in zip(ahead, behind)
        ]

    return pushed


def our_jvp(function):
    def pushed(*inputs):
        return jvp(function, inputs, tuple(x.cos() for x in inputs))[1]

    return pushed


PLAIN = {"vjp": plain_vjp, "jvp": plain_jvp}
PLAIN_TWICE = {"vjp": plain_vjp, "jvp": jvp_by_vjps}
OURS = {"vjp": our_vjp, "jvp": our_jvp}


class Mode:
    """`levels` vmaps around `transforms` of an operator, the outermost first."""

    def __init__(self, levels, *transforms):
        self.levels, self.transforms = levels, transforms

    def missing(self, op, p):
        """Why the mode does not apply to a problem of the operator, or None."""
        first = set(self.transforms)
        if first and not p.differentiable:
            return NOT_DIFFERENTIABLE
        if "vjp" in first and not op.supports_autograd:
            return NOT_DIFFERENTIABLE
        if "jvp" in first and not op.supports_forward_ad:
            return NOT_DIFFERENTIABLE
        if self.twice and not (
            op.supports_fwgrad_bwgrad if "jvp" in first else op.supports_gradgrad
        ):
            return NOT_TWICE
        return None

    @property
    def twice(self):
        return len(self.transforms) == 2

    def plain(self, p, by_vjps=False, by_differences=False):
        named = PLAIN_TWICE if self.twice or by_vjps else PLAIN
        makers = [named[name] for name in self.transforms]
        if self.twice and by_differences and self.transforms[1] == "jvp":
            makers[1] = jvp_by_differences
        return self._of(p, makers)

    def ours(self, p):
        return self._of(p, [OURS[name] for name in self.transforms])

    def _of(self, p, makers):
        if not makers:
            return p.function

        def function(*values):
            def differentiable(*inputs):
                full = list(values)
                for position, value in zip(p.differentiable, inputs, strict=True):
                    full[position] = value
                return p.processed(*full)

            transformed = differentiable
            for maker in reversed(makers):
                transformed = maker(transformed)
            return transformed(*(values[i] for i in p.differentiable))

        return function


MODES = {
    "vmap": Mode(1),
    "vmap(vmap)": Mode(2),
    "vjp": Mode(0, "vjp"),
    "jvp": Mode(0, "jvp"),
    "vjp(vjp)": Mode(0, "vjp", "vjp"),
    "jvp(vjp)": Mode(0, "jvp", "vjp"),
    "vjp(jvp)": Mode(0, "vjp", "jvp"),
    "jvp(jvp)": Mode(0, "jvp", "jvp"),
    "vmap(vjp)": Mode(1, "vjp"),
    "vmap(jvp)": Mode(1, "jvp"),
}
DEEP_MODES = {
    **MODES,
    "vmap(vjp(vjp))": Mode(1, "vjp", "vjp"),
    "vmap(jvp(vjp))": Mode(1, "jvp", "vjp"),
    "vmap(vjp(jvp))": Mode(1, "vjp", "jvp"),
    "vmap(jvp(jvp))": Mode(1, "jvp", "jvp"),
}
