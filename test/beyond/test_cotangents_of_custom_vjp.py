"""What `bwd` of a `custom_vjp` returns must fit its argument: nothing is summed or converted."""

import re

import pytest
import torch

from functorch_ext import custom_vjp, functional_call, grad, jvp, vjp, vmap


def ruled(bwd, f=lambda x: x * 2):
    def twice(x):
        return f(x)

    rule = custom_vjp(twice)
    rule.defvjp(lambda x: (f(x), None), lambda _, cotangent: (bwd(cotangent),))
    return rule


SCALAR, VECTOR = torch.tensor(1.0), torch.ones(3)

OF_TENSORS = {
    "vector for a number": (lambda c: c * torch.ones(3), SCALAR, "(3,)", "torch.float32"),
    "row for a number": (lambda c: c[None], SCALAR, "(1,)", "torch.float32"),
    "number for a vector": (lambda c: c.sum(), VECTOR, "()", "torch.float32"),
    "row for a vector": (lambda c: c[None], VECTOR, "(1, 3)", "torch.float32"),
    "another length": (lambda c: c[:2], VECTOR, "(2,)", "torch.float32"),
    "another dtype": (lambda c: c.double(), VECTOR, "(3,)", "torch.float64"),
    "complex for real": (lambda c: c + 0j, SCALAR, "()", "torch.complex64"),
    "integers": (lambda c: c.long(), SCALAR, "()", "torch.int64"),
}


def expected(shape, found):
    return (
        f"functorch_ext.custom_vjp: bwd of twice must return a cotangent of shape {shape} and "
        "dtype torch.float32 for x, as the argument is, or None for zeros, but returned "
        f"{found}."
    )


@pytest.mark.parametrize("name", OF_TENSORS)
def test_shapes_and_dtypes(name):
    bwd, x, shape, dtype = OF_TENSORS[name]
    message = expected(tuple(x.shape), f"one of shape {shape} and dtype {dtype}")
    f = ruled(bwd)
    total = lambda x: f(x).sum()
    batch = torch.stack([x, 2 * x])
    leaf = x.clone().requires_grad_()
    for call in (
        lambda: grad(total)(x),
        lambda: vmap(grad(total))(batch),
        lambda: vmap(lambda c: vjp(f, x)[1](c)[0])(batch),
        lambda: total(leaf).backward(),
    ):
        with pytest.raises(ValueError) as raised:
            call()
        assert str(raised.value).split("\n")[0] == message
    # Forward mode, which is made of the pullback, says why it can't be.
    with pytest.raises(NotImplementedError, match=re.escape(message)):
        jvp(f, (x,), (x,))


@pytest.mark.parametrize(
    ("value", "found"), [(1.0, "a float"), (1, "an int"), (True, "a bool"), ("text", "a str")]
)
def test_python_values(value, found):
    with pytest.raises(TypeError) as raised:
        grad(ruled(lambda c: value))(SCALAR)
    assert str(raised.value).split("\n")[0] == expected((), found)


def test_arguments_are_named_as_the_function_writes_them():
    def f(scale, tree, *rest):
        return scale(tree["a"] * tree["b"][0]) + sum(rest)

    rule = custom_vjp(f, nondiff_argnums=0)
    fwd = lambda scale, tree, *rest: (f(scale, tree, *rest), tree)
    tree = {"a": torch.tensor(2.0), "b": (torch.tensor(3.0), "text")}

    def named(bwd):
        rule.defvjp(fwd, bwd)
        with pytest.raises(ValueError) as raised:
            grad(lambda tree: rule(torch.sin, tree, SCALAR, SCALAR))({**tree, "b": tree["b"][:1]})
        return str(raised.value).split(" for ")[1].split(",")[0]

    good = lambda c: {"a": c, "b": (c,)}
    assert named(lambda _, r, c: ({"a": c, "b": (c[None],)}, c, c)) == "tree['b'][0]"
    assert named(lambda _, r, c: (good(c), c, c[None])) == "rest[1]"


def test_of_a_builtin():
    rule = custom_vjp(torch.sin)
    rule.defvjp(lambda x: (torch.sin(x), x), lambda x, c: (c[None],))
    with pytest.raises(ValueError, match=r"bwd of sin must return .* for args\[0\], as"):
        grad(rule)(SCALAR)


def test_none_and_what_integers_get_stay():
    rule = custom_vjp(lambda x, i, y: x[i] * y)
    rule.defvjp(
        lambda x, i, y: (x[i] * y, (x, i, y)),
        lambda r, c: (None, torch.zeros(()), c * r[0][r[1]]),
    )
    x, i = torch.tensor([1.0, 2.0]), torch.tensor(1)
    assert torch.equal(grad(rule, 2)(x, i, SCALAR), torch.tensor(2.0))
    assert torch.equal(grad(rule, 0)(x, i, SCALAR), torch.zeros(2))


def test_batches_of_some_arguments():
    rule = custom_vjp(lambda x, w: (x * w).sum())
    rule.defvjp(lambda x, w: ((x * w).sum(), (x, w)), lambda r, c: (c * r[1], c * r[0]))
    x, w = torch.randn(4, 3), torch.randn(3)
    for argnum, expected in ((0, w.expand(4, 3)), (1, x)):
        assert torch.equal(vmap(grad(rule, argnum), (0, None))(x, w), expected)
    total = lambda w: vmap(rule, (0, None))(x, w).sum()
    torch.testing.assert_close(grad(total)(w), x.sum(0))
    model = torch.nn.Linear(3, 1)
    loss = lambda p: rule(functional_call(model, p, x[0]).expand(3), w)
    assert {n: g.shape for n, g in grad(loss)(dict(model.named_parameters())).items()} == {
        n: p.shape for n, p in model.named_parameters()
    }


def test_devices():
    with pytest.raises(ValueError) as raised:
        grad(ruled(lambda c: c.to("meta")))(SCALAR)
    assert str(raised.value).split("\n")[0] == (
        "functorch_ext.custom_vjp: bwd of twice must return a cotangent of shape () and dtype "
        "torch.float32 on device cpu for x, as the argument is, or None for zeros, but returned one "
        "of shape () and dtype torch.float32 on device meta."
    )
