"""functionalize among derivatives: what PyTorch's functional operators have no derivative for."""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import functionalize, grad, jvp, vmap
from test.oracle import assert_close, rand
from test.state import failure

REMOVE = pytest.mark.parametrize("remove", ["mutations", "mutations_and_views"])


def plain_gradient(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


def clamped_without_grad(x):
    y = x.clone()
    with torch.no_grad():
        y.clamp_(min=0.1)
    return (y * y).sum()


def part_clamped_without_grad(x):
    y = x.clone()
    with torch.no_grad():
        y[:2].clamp_(min=0.1)
    return (y * y).sum()


def conjugated(x):
    z = torch.complex(x, x.cos())
    return (z * z.conj()).real.sum()


def complex_part_written(x):
    z = x + 1j
    z[:1].mul_(2)
    z[-1] = x.sum()
    return (z * z.conj()).real.sum()


def complex_diagonal_written(x):
    z = x.outer(x) + 1j
    z.diagonal().mul_(2)
    return z.abs().square().sum()


def bags(x):
    return F.embedding_bag(torch.tensor([[0, 2]]), x.outer(x.cos())).square().sum()


FUNCTIONS = {
    "a write without grad mode": clamped_without_grad,
    "a write to a part without grad mode": part_clamped_without_grad,
    "gaussian_nll_loss": lambda x: F.gaussian_nll_loss(x, x.cos(), x.square()),
    "conj": conjugated,
    "a write to a part of a complex tensor": complex_part_written,
    "a write to the diagonal of a complex matrix": complex_diagonal_written,
    "view_as_complex": lambda x: torch.view_as_complex(torch.stack([x, x.cos()], -1)).abs().sum(),
    "embedding_bag": bags,
}


@REMOVE
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients(name, remove):
    function, x = FUNCTIONS[name], torch.tensor([-0.4, 0.7, -1.3], dtype=torch.float64)
    expected = plain_gradient(function, x)
    assert_close(plain_gradient(functionalize(function, remove=remove), x), expected)
    assert_close(grad(functionalize(function, remove=remove))(x), expected)
    assert_close(functionalize(grad(function), remove=remove)(x), expected)


@REMOVE
def test_detach_has_no_tangent(remove):
    x, tangent = rand(3), rand(3)
    function = functionalize(lambda x: x.detach() * x, remove=remove)
    assert_close(jvp(function, (x,), (tangent,))[1], x * tangent)


@REMOVE
def test_tangents_of_an_expanded_tensor_from_outside(remove):
    outside, x = rand(1, 3).expand(2, 3), rand(3)
    pushed = lambda x: jvp(torch.ops.aten.alias, (outside,), (outside.cos(),))[1] * x
    assert_close(functionalize(pushed, remove=remove)(x), outside.cos() * x)


@REMOVE
@pytest.mark.parametrize("view", [torch.conj, torch.real])
def test_as_strided_of_what_its_memory_does_not_say(view, remove):
    strided = lambda x: view(torch.complex(x, x)).as_strided((2,), (1,))
    message = failure(lambda: functionalize(strided, remove=remove)(rand(3)), RuntimeError)
    assert "as_strided" in message and "Clone" in message


LAID_OUT = {
    "every other element": lambda x: torch.stack([x, -x], 1)[:, 0],
    "from an offset": lambda x: torch.cat([x, x])[2:],
    "a column": lambda x: x.reshape(2, 2).t()[0],
    "a transposed matrix": lambda x: x.reshape(2, 2).t(),
    "the real part": lambda x: torch.complex(x, -x).real,
}


def viewed(x):
    return x.unsqueeze(0) * x.sin()


def reshaped(x):
    return x.view(*x.shape, 1)[..., 0] * x


def written_through_a_view(x):
    y = x * 1
    y.unsqueeze(0)[..., 0].mul_(3)
    return y * x


@REMOVE
@pytest.mark.parametrize("layout", LAID_OUT)
@pytest.mark.parametrize("function", [viewed, reshaped, written_through_a_view])
def test_tangents_of_views_of_what_is_part_of_a_memory(function, layout, remove):
    """PyTorch compares how primal and tangent are laid out; their values are laid out otherwise."""
    x = LAID_OUT[layout](rand(4))
    pushed = lambda x: jvp(function, (x,), (x.cos(),))
    twice = lambda x: jvp(lambda x: pushed(x)[1], (x,), (x.sin(),))
    for derivative in (pushed, twice):
        expected = derivative(x)
        assert_close(functionalize(derivative, remove=remove)(x), expected)
        assert_close(
            vmap(functionalize(derivative, remove=remove))(x[None].expand(2, *x.shape)),
            tuple(y.expand(2, *y.shape) for y in expected),
        )


@REMOVE
def test_as_strided_of_what_lies_between_the_elements_of_an_input(remove):
    def function(x):
        x.mul_(2)
        return x.as_strided((3,), (1,)) * 3, x.as_strided((2,), (2,)).sin()

    memory = rand(4, 6)
    every_other = lambda memory: memory.clone()[..., 1::2]
    functional = functionalize(function, remove=remove)
    expected = function(every_other(memory[0]))
    assert_close(functional(every_other(memory[0])), expected)
    assert_close(
        jvp(lambda x: functional(x * 1), (every_other(memory[0]),), (memory[0][::2],))[1],
        jvp(lambda x: function(x * 1), (every_other(memory[0]),), (memory[0][::2],))[1],
    )


COMPLEX = torch.tensor([1 + 2j, -0.5 + 1j])
CONJUGATED = {
    "conj": lambda z: z.conj(),
    "conj of a part": lambda z: z.conj()[:1],
    "part of conj": lambda z: z[1:].conj(),
    "conj twice": lambda z: z.conj()[:1].conj(),
    "imag of conj": lambda z: z.conj().imag,
    "real": lambda z: z.real,
    "imag": lambda z: z.imag,
    "plain": lambda z: z[:1],
}
WRITES = {
    "copy_": lambda part, u: part.copy_(u),
    "add_": lambda part, u: part.add_(u),
    "mul_": lambda part, u: part.mul_(u),
}


@pytest.mark.parametrize("has_tangent", [False, True])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("view", CONJUGATED.values(), ids=CONJUGATED)
def test_tangents_written_through_views_of_complex_numbers(view, write, has_tangent):
    """As without functionalize, or an error; never another tangent."""

    def func(u):
        z = torch.ones(2, dtype=COMPLEX.dtype) * (u if has_tangent else COMPLEX)
        part = view(z)
        number = u[: part.numel()]
        write(part, number if part.is_complex() else number.real)
        return z

    def pushed(f):
        return jvp(f, (COMPLEX,), (COMPLEX * 1j,))

    expected = pushed(func)
    for call in (
        lambda: pushed(functionalize(func)),
        lambda: functionalize(lambda u: jvp(func, (u,), (u * 1j,)))(COMPLEX),
    ):
        try:
            found = call()
        except (NotImplementedError, RuntimeError) as error:
            assert "functorch_ext.functionalize" in str(error)
            continue
        assert_close(found, expected)
