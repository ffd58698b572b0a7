"""Forward mode of custom functions and operators that say nothing of their tangents."""

import pytest
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from functorch_ext import grad, hessian, jacfwd, jvp, vmap


def rand(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


Y = rand(3)


class Sine(Function):
    """sin(x) * y, in the style with ctx in forward."""

    @staticmethod
    def forward(ctx, x, y, scale=1.0):
        ctx.save_for_backward(x, y)
        ctx.scale = scale
        return x.sin() * y * scale

    @staticmethod
    def backward(ctx, cotangent):
        x, y = ctx.saved_tensors
        return cotangent * x.cos() * y * ctx.scale, cotangent * x.sin() * ctx.scale, None


class Exponential(Function):
    """exp(x), with its result saved, and something that isn't a tensor beside it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.exp(), "exp", x.gt(0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output[0])
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    def backward(ctx, cotangent, *_):
        return cotangent * ctx.saved_tensors[0]


class WithRule(Function):
    """x ** 3, with a vmap staticmethod."""

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        return 3 * cotangent * ctx.saved_tensors[0] ** 2

    @staticmethod
    def vmap(info, in_dims, x):
        return WithRule.apply(x), in_dims[0]


@torch.library.custom_op("functorch_ext_test::cubed", mutates_args=())
def cubed(x: torch.Tensor, factors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.from_numpy(x.numpy() ** 3) * factor for factor in factors]


def cubed_backward(ctx, cotangents):
    x, *factors = ctx.saved_tensors
    gradient = sum(c * f for c, f in zip(cotangents, factors)) * 3 * x**2
    return gradient, [c * x**3 for c in cotangents]


cubed.register_autograd(
    cubed_backward,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0], *inputs[1]),
)

library = torch.library.Library("functorch_ext_test", "FRAGMENT")
library.define("of_function(Tensor x) -> Tensor")
library.impl("of_function", lambda x: x.sin(), "CPU")


class OfFunction(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.functorch_ext_test.of_function(x)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * ctx.saved_tensors[0].cos()


library.impl("of_function", OfFunction.apply, "Autograd")
library.define("of_parts(Tensor x) -> Tensor")
library.impl("of_parts", lambda x: x.cos() * x, "CompositeImplicitAutograd")


# name: (the function, and the same made of PyTorch's operators)
FUNCTIONS = {
    "ctx in forward": (
        lambda x: Sine.apply(x, x.cos(), 2.0),
        lambda x: x.sin() * x.cos() * 2,
    ),
    "a constant": (lambda x: Sine.apply(x, Y), lambda x: x.sin() * Y),
    "results saved": (
        lambda x: Exponential.apply(x * 2)[0],
        lambda x: (x * 2).exp(),
    ),
    "a vmap staticmethod": (lambda x: WithRule.apply(x), lambda x: x**3),
    "one in another": (
        lambda x: WithRule.apply(Sine.apply(x, x)),
        lambda x: (x.sin() * x) ** 3,
    ),
    "custom_op": (
        lambda x: sum(cubed(x.sin(), [x.exp(), Y])),
        lambda x: x.sin() ** 3 * (x.exp() + Y),
    ),
    "autograd kernel": (
        lambda x: torch.ops.functorch_ext_test.of_function(x * 2),
        lambda x: (x * 2).sin(),
    ),
    "decomposition": (
        lambda x: torch.ops.functorch_ext_test.of_parts(x),
        lambda x: x.cos() * x,
    ),
}


@pytest.fixture(params=FUNCTIONS)
def functions(request):
    return FUNCTIONS[request.param]


def assert_same(transform, functions, *args):
    ours, plain = (transform(function)(*args) for function in functions)
    torch.testing.assert_close(ours, plain)


X, T, S = rand(3, seed=1), rand(3, seed=2), rand(3, seed=3)
XS, TS = rand(2, 3, seed=4), rand(2, 3, seed=5)


@pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")
class TestTransforms:
    def test_first(self, functions):
        assert_same(lambda f: lambda x, t: jvp(f, (x,), (t,)), functions, X, T)
        assert_same(jacfwd, functions, X)

    def test_mapped(self, functions):
        pushed = lambda f: lambda x, t: jvp(f, (x,), (t,))
        assert_same(lambda f: vmap(pushed(f)), functions, XS, TS)
        assert_same(lambda f: pushed(vmap(f)), functions, XS, TS)
        assert_same(lambda f: vmap(pushed(vmap(f)), 1, 1), functions, XS[:, None], TS[:, None])
        assert_same(lambda f: vmap(jacfwd(f)), functions, XS)

    def test_second(self, functions):
        def forward_over_forward(f):
            return lambda x: jvp(lambda x: jvp(f, (x,), (S,))[1], (x,), (T,))

        def forward_over_reverse(f):
            return lambda x: jvp(grad(lambda x: (f(x) * S).sum()), (x,), (T,))

        def reverse_over_forward(f):
            return grad(lambda x: (jvp(f, (x,), (T,))[1] * S).sum())

        for transform in (forward_over_forward, forward_over_reverse, reverse_over_forward):
            assert_same(transform, functions, X)
            assert_same(lambda f, transform=transform: vmap(transform(f)), functions, XS)
        assert_same(lambda f: hessian(lambda x: (f(x) * S).sum()), functions, X)

    def test_mapped_inside(self, functions):
        """The derivatives of plane 0, through a vmap."""
        total = lambda f: lambda x: (vmap(f)(x) * S).sum()
        assert_same(lambda f: lambda x, t: jvp(grad(total(f)), (x,), (t,)), functions, XS, TS)
        assert_same(lambda f: hessian(total(f)), functions, XS)

    def test_third(self, functions):
        def third(f):
            loss = lambda x: (f(x) * S).sum()
            return lambda x: jvp(lambda x: jvp(grad(loss), (x,), (T,))[1], (x,), (S,))[1]

        assert_same(third, functions, X)


def test_other_outputs_have_no_tangent():
    (exponential, name, sign), tangents = jvp(
        lambda x: (lambda y: (y[0], x.new_tensor(len(y[1])), y[2]))(Exponential.apply(x)),
        (X,),
        (T,),
    )
    torch.testing.assert_close(tangents[0], exponential * T)
    assert name == 3 and sign.dtype == torch.bool
    assert not tangents[1].any() and not tangents[2].any()


def test_nothing_is_recorded():
    """Without reverse mode outside, neither a result nor its tangent has a graph."""
    value, tangent = jvp(lambda x: Sine.apply(x, x), (X,), (T,))
    assert not value.requires_grad and not tangent.requires_grad


def test_registered_in_between():
    """An operator that is registered after a transform has run."""
    jvp(torch.sin, (X,), (T,))
    library.define("late(Tensor x) -> Tensor")
    library.impl("late", lambda x: x.clone(), "CPU")
    torch.library.register_autograd("functorch_ext_test::late", lambda ctx, g: g * 5, lib=library)
    tangent = jvp(lambda x: torch.ops.functorch_ext_test.late(x), (X,), (T,))[1]
    torch.testing.assert_close(tangent, 5 * T)


class Once(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangent):
        return cotangent * 2


class Outside(Function):
    """Its backward leaves autograd."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, cotangent):
        return torch.from_numpy(cotangent.detach().numpy() * 2)


class InPlace(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * 2


library.define("without_derivative(Tensor x) -> Tensor")
library.impl("without_derivative", lambda x: x.clone(), "CPU")
library.define("writes(Tensor(a!) x) -> ()")
library.impl("writes", lambda x: None, "CPU")


@torch.library.custom_op("functorch_ext_test::no_formula", mutates_args=())
def no_formula(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Once.apply, "flows into Once, which has no .*once_differentiable"),
        (Outside.apply, "flows into Outside, which has no .*outside of autograd"),
        (lambda x: InPlace.apply(x.clone()), "flows into InPlace, which writes"),
        (
            lambda x: torch.ops.functorch_ext_test.without_derivative(x),
            "functorch_ext_test::without_derivative, which has no derivative.*register_autograd",
        ),
        (
            lambda x: torch.ops.functorch_ext_test.writes(x.clone()),
            "functorch_ext_test::writes, which writes to its arguments",
        ),
        (no_formula, "functorch_ext_test::no_formula, .*no autograd formula"),
    ],
)
def test_errors(function, message):
    with pytest.raises(NotImplementedError, match=f"(?s){message}"):
        jvp(function, (X,), (T,))
