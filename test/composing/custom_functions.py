"""torch.autograd.Function in its styles, each with a derivative that only its backward knows."""

import torch
from torch.autograd import Function

from test.composing.rows import ALL, BOTH, REVERSE, TWICE, sample, uses
from test.custom_functions.functions import Doubled, Exponential, NumpyBackward, NumpySine, Once


class OldStyle(Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x * x * factor

    @staticmethod
    def backward(ctx, cotangent):
        return 3 * cotangent * ctx.saved_tensors[0] * ctx.factor, None


class OldStyleForward(OldStyle):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_forward(x)
        return OldStyle.forward(ctx, x, factor)

    @staticmethod
    def jvp(ctx, tangent, _):
        return 3 * tangent * ctx.saved_tensors[0] * ctx.factor


class WithSetup(Function):
    @staticmethod
    def forward(x, factor):
        return x * x * factor

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.factor = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    backward = OldStyle.backward


class WithSetupForward(WithSetup):
    jvp = OldStyleForward.jvp


class Generated(WithSetup):
    generate_vmap_rule = True


class GeneratedForward(WithSetupForward):
    generate_vmap_rule = True


class WithRule(WithSetup):
    @staticmethod
    def vmap(info, in_dims, x, factor):
        return WithRule.apply(x.movedim(in_dims[0], 0), factor), 0


class WithRuleForward(WithSetupForward):
    @staticmethod
    def vmap(info, in_dims, x, factor):
        return WithRuleForward.apply(x.movedim(in_dims[0], 0), factor), 0


class DoubledWithSetup(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.mul_(2)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_dirty(output)

    backward = Doubled.backward


class Sorted(Function):
    @staticmethod
    def forward(ctx, x):
        values, order = x.sort(-1)
        ctx.mark_non_differentiable(order)
        ctx.save_for_backward(order)
        return values, order

    @staticmethod
    def backward(ctx, cotangent, _):
        (order,) = ctx.saved_tensors
        return 2 * torch.zeros_like(cotangent).scatter(-1, order, cotangent)


class SortedWithSetup(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sort(-1)[:2]

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    backward = Sorted.backward


class OnceWithSetup(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    backward = Once.backward


class NumpyForward(Function):
    """NumpySine without a rule for vmap."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return NumpySine.forward(x)

    backward = NumpySine.backward


class Skips(Function):
    """Uses needs_input_grad, and gets None for cotangents."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y)
        return x * y, x + y

    @staticmethod
    def backward(ctx, first, second):
        x, y = ctx.saved_tensors
        assert second is None
        by_x = 2 * first * y if ctx.needs_input_grad[0] else None
        return by_x, 5 * first * x if ctx.needs_input_grad[1] else None


FEATURE = "torch.autograd.Function"
XS = (sample(4, 3),)


def functions(name, func, ways=TWICE):
    return uses(FEATURE, name, func, XS, ways)


ROWS = [
    *functions("ctx in forward, a non-tensor argument", lambda x: OldStyle.apply(x, 5)),
    *functions("ctx in forward, with jvp", lambda x: OldStyleForward.apply(x, 5), ALL),
    *functions("ctx in forward, an intermediate and the output saved", Exponential.apply),
    *functions("setup_context, a non-tensor argument", lambda x: WithSetup.apply(x, 5)),
    *functions("setup_context, with jvp", lambda x: WithSetupForward.apply(x, 5), ALL),
    *functions("generate_vmap_rule", lambda x: Generated.apply(x, 5)),
    *functions("generate_vmap_rule, with jvp", lambda x: GeneratedForward.apply(x, 5), ALL),
    *functions("vmap staticmethod", lambda x: WithRule.apply(x, 5)),
    *functions("vmap staticmethod, with jvp", lambda x: WithRuleForward.apply(x, 5), ALL),
    *functions("mark_dirty, ctx in forward", lambda x: Doubled.apply(x * 1)),
    *functions("mark_dirty, setup_context", lambda x: DoubledWithSetup.apply(x * 1)),
    *functions("mark_non_differentiable, ctx in forward", lambda x: Sorted.apply(x)[0]),
    *functions("mark_non_differentiable, setup_context", lambda x: SortedWithSetup.apply(x)[0]),
    *functions("once_differentiable, ctx in forward", Once.apply, REVERSE),
    *functions("once_differentiable, setup_context", OnceWithSetup.apply, REVERSE),
    *functions("needs_input_grad and cotangents of None", lambda x: Skips.apply(x, x.sin())[0]),
    *functions("forward in NumPy", NumpyForward.apply),
    *functions("forward in NumPy, with vmap staticmethod", NumpySine.apply),
    *functions("backward in NumPy", NumpyBackward.apply, REVERSE),
    *functions(
        "one inside another", lambda x: OldStyleForward.apply(WithSetupForward.apply(x, 2), 3), BOTH
    ),
]
