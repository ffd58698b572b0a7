"""Operators without a batching rule run through the per-sample loop: right, and never silent."""

import uuid
import warnings

import pytest
import torch

from functorch_ext import FallbackWarning, grad, jvp, vmap
from test.oracle import assert_close, loop, rand

NAMESPACE = "functorch_ext_test"
LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")


def define(schema, function):
    """A fresh operator, so that it is each test's first use of it; `schema` without the name."""
    name = f"op_{uuid.uuid4().hex}"
    LIBRARY.define(name + schema)
    LIBRARY.impl(name, function, "CPU")
    return getattr(getattr(torch.ops, NAMESPACE), name)


def quiet(function, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args)


def events(function, *args, action="always"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        function(*args)
    return [w for w in caught if issubclass(w.category, FallbackWarning)]


SCHEMAS = {
    "one": ("(Tensor x) -> Tensor", lambda x: x.sin() + x.sum(), (rand(3, 4),), 0),
    "two": ("(Tensor x, Tensor y) -> Tensor", lambda x, y: x * y, (rand(3, 4), rand(4, 3)), (0, 1)),
    "unbatched first": (
        "(Tensor x, Tensor y) -> Tensor",
        lambda x, y: x @ y,
        (rand(4), rand(3, 4)),
        (None, 0),
    ),
    "shape changes": ("(Tensor x) -> Tensor", lambda x: x.new_ones(2, 5) * x[0], (rand(3, 4),), 0),
    "two outputs": (
        "(Tensor x) -> (Tensor, Tensor)",
        lambda x: (x.sin(), x.sum()),
        (rand(4, 3),),
        -1,
    ),
    "list": (
        "(Tensor[] xs, int n) -> Tensor",
        lambda xs, n: torch.cat(xs) * n,
        ([rand(3, 2), rand(2, 3)], 3),
        ([0, 1], None),
    ),
    "list out": (
        "(Tensor x) -> Tensor[]",
        lambda x: [x.sin(), x[:2].clone()],
        (rand(3, 4),),
        0,
    ),
    "optional": (
        "(Tensor x, Tensor? y, float s=2.0) -> Tensor",
        lambda x, y, s=2.0: x * s if y is None else x + y,
        (rand(3, 4), None),
        (0, None),
    ),
    "integers out": ("(Tensor x) -> Tensor", lambda x: (x > 0).long(), (rand(3, 4),), 0),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_loop_is_right(name):
    schema, function, args, in_dims = SCHEMAS[name]
    op = define(schema, function)
    assert_close(quiet(vmap(op, in_dims), *args), loop(op, in_dims)(*args))


def test_nested():
    op, x = define("(Tensor x) -> Tensor", lambda x: x.sin() + x.sum()), rand(2, 3, 4)
    assert_close(quiet(vmap(vmap(op, 1)), x), loop(loop(op, 1))(x))


def test_every_sample_is_one_call_of_the_kernel():
    calls = []
    op = define("(Tensor x) -> Tensor", lambda x: calls.append(x.shape) or x.clone())
    quiet(vmap(op), rand(3, 4))
    assert calls == [(4,)] * 3


def test_an_unbatched_call_does_not_loop():
    calls = []
    op = define("(Tensor x) -> Tensor", lambda x: calls.append(x.shape) or x.clone())
    shared = rand(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        assert_close(vmap(lambda x: x + op(shared))(rand(3, 4) * 0), shared.expand(3, 4))
    assert len(calls) == 1


def test_the_warning_names_the_operator():
    op = define("(Tensor x) -> Tensor", lambda x: x.clone())
    (event,) = events(vmap(op), rand(3, 4))
    name = op.default.name().removesuffix(".default")
    assert str(event.message).startswith(f"no batching rule for {name}")
    assert issubclass(FallbackWarning, UserWarning)


def test_the_warning_names_the_overload():
    name = f"op_{uuid.uuid4().hex}"
    LIBRARY.define(f"{name}.special(Tensor x) -> Tensor")
    LIBRARY.impl(f"{name}.special", lambda x: x.clone(), "CPU")
    (event,) = events(vmap(getattr(getattr(torch.ops, NAMESPACE), name)), rand(3))
    assert str(event.message).startswith(f"no batching rule for {NAMESPACE}::{name}.special")


def test_always_shows_every_event():
    op = define("(Tensor x) -> Tensor", lambda x: x.clone())
    assert len(events(vmap(lambda x: op(op(x))), rand(3, 4))) == 2


def test_default_shows_one_per_operator():
    first = define("(Tensor x) -> Tensor", lambda x: x.clone())
    second = define("(Tensor x) -> Tensor", lambda x: x.clone())

    def repeatedly(x):
        for _ in range(3):
            vmap(lambda x: second(first(x)))(x)

    found = [str(event.message) for event in events(repeatedly, rand(3, 4), action="default")]
    assert len(found) == 2 and found[0] != found[1]


def test_the_warning_can_be_an_error():
    op = define("(Tensor x) -> Tensor", lambda x: x.clone())
    with warnings.catch_warnings(), pytest.raises(FallbackWarning, match="no batching rule"):
        warnings.simplefilter("error", FallbackWarning)
        vmap(op)(rand(3, 4))


def test_the_warning_points_at_the_users_line():
    op = define("(Tensor x) -> Tensor", lambda x: x.clone())
    (event,) = events(vmap(lambda x: op(x)), rand(3, 4))
    assert event.filename == __file__


@torch.library.custom_op(f"{NAMESPACE}::cube", mutates_args=())
def cube(x: torch.Tensor) -> torch.Tensor:
    return x**3


@cube.register_fake
def _(x):
    return torch.empty_like(x)


cube.register_autograd(
    lambda ctx, cotangent: 3 * cotangent * ctx.saved_tensors[0] ** 2,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


def test_gradients_go_through_the_registered_formula():
    x = rand(3, 4)
    assert_close(quiet(vmap(grad(lambda x: cube(x).sum())), x), 3 * x * x)
    assert_close(quiet(grad(lambda x: vmap(cube)(x).sum()), x), 3 * x * x)


def unsupported_in_place(x, y):
    x.add_(y)


def test_in_place_operators():
    op = define("(Tensor(a!) x, Tensor y) -> ()", unsupported_in_place)
    x, y = rand(3, 4), rand(3, 4)
    expected = x + y
    quiet(vmap(lambda x, y: op(x, y) or x.clone()), x, y)
    assert_close(x, expected)


def test_in_place_operators_refuse_an_unbatched_target():
    op = define("(Tensor(a!) x, Tensor y) -> ()", unsupported_in_place)
    x, y = rand(4), rand(3, 4)
    original = x.clone()
    with pytest.raises(RuntimeError, match="op_"):
        quiet(vmap(lambda y: op(x, y) or y), y)
    assert_close(x, original)


def test_an_error_in_the_kernel_comes_through():
    def fail(x):
        raise ValueError("the kernel says no")

    op = define("(Tensor x) -> Tensor", fail)
    with pytest.raises(ValueError, match="the kernel says no"):
        quiet(vmap(op), rand(3, 4))


def test_samples_of_different_shapes_are_an_error():
    op = define("(Tensor x) -> Tensor", lambda x: x[x > 0].clone())
    with pytest.raises(RuntimeError, match="op_"):
        quiet(vmap(op), torch.tensor([[1.0, 2.0], [1.0, -1.0]]))


def test_zero_samples():
    op = define("(Tensor x) -> Tensor", lambda x: x.sin())
    try:
        assert quiet(vmap(op), rand(0, 4)).shape[0] == 0
    except RuntimeError as error:  # the shape of the output is then unknown: say so
        assert "op_" in str(error)


def test_forward_mode_of_what_the_loop_gives():
    op, x, tangent = define("(Tensor x) -> Tensor", lambda x: x.clone()), rand(3, 4), rand(3, 4)
    detour = vmap(lambda x, t: jvp(lambda y: y.sin() * op(x), (x,), (t,))[1])
    assert_close(quiet(detour, x, tangent), x.cos() * tangent * x)
