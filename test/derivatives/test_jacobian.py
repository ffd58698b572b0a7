"""jacrev, jacfwd and hessian against plain Jacobians, one row at a time."""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from test import oracle
from test.oracle import assert_close, loop, rand
from test.state import assert_failure, failure

BOTH = pytest.mark.parametrize("jacobian", [jacrev, jacfwd])


def matrix(x, y):
    """(2, 3) and (3,) to (2, 2); every output depends on every input."""
    return (x * y).sin() @ x.T.exp() + y.prod()


def plain(function, *args, argnums=0):
    """The Jacobians as a tuple where argnums is one."""
    if isinstance(argnums, tuple):
        return tuple(plain(function, *args, argnums=argnum) for argnum in argnums)
    return oracle.jacobian(function, argnums)(*args).detach()


@BOTH
@pytest.mark.parametrize("argnums", [0, 1, -1, -2, (0,), (1,), (0, 1), (1, 0), (-1, 0)])
def test_argnums(jacobian, argnums):
    args = rand(2, 3), rand(3)
    assert_close(jacobian(matrix, argnums)(*args), plain(matrix, *args, argnums=argnums))


@BOTH
@pytest.mark.parametrize("in_shape", [(), (1,), (3,), (2, 3)])
@pytest.mark.parametrize("out_shape", [(), (1,), (4,), (2, 2)])
def test_shapes(jacobian, in_shape, out_shape):
    x, weight = rand(*in_shape), rand(*out_shape)

    def function(x):
        return (weight * x.sin().sum() + x.prod()).cos()

    assert jacobian(function)(x).shape == out_shape + in_shape
    assert_close(jacobian(function)(x), plain(function, x))


@BOTH
def test_finite_differences(jacobian):
    x, step = rand(3), 1e-6

    def function(x):
        return (x.cumsum(0) * x.flip(0)).sin()

    shifts = step * torch.eye(3, dtype=torch.float64)
    columns = [(function(x + shift) - function(x - shift)) / (2 * step) for shift in shifts]
    assert_close(jacobian(function)(x), torch.stack(columns, -1), tolerance=1e-6)


@BOTH
def test_nested_outputs(jacobian):
    x, y = rand(3), rand(2)

    def function(x, y):
        return {"a": (x * y.sum()).sin(), "b": [y[:, None] * x, (x.prod() * y.prod(),)]}

    def part(pick):
        return plain(lambda x, y: pick(function(x, y)), x, y, argnums=(0, 1))

    expected = {
        "a": part(lambda out: out["a"]),
        "b": [part(lambda out: out["b"][0]), (part(lambda out: out["b"][1][0]),)],
    }
    assert_close(jacobian(function, (0, 1))(x, y), expected)


@BOTH
def test_nested_inputs(jacobian):
    tree = {"w": rand(2, 3), "b": [rand(2)]}
    x = rand(3)

    def function(tree, x):
        return (tree["w"] @ x + tree["b"][0]).tanh()

    def flat(w, b):
        return function({"w": w, "b": [b]}, x)

    w, b = plain(flat, tree["w"], tree["b"][0], argnums=(0, 1))
    assert_close(jacobian(function)(tree, x), {"w": w, "b": [b]})


@BOTH
def test_has_aux(jacobian):
    x, y = rand(2, 3), rand(3)

    def function(x, y):
        return matrix(x, y), {"aux": [x.exp(), y]}

    expected = plain(matrix, x, y), {"aux": [x.exp(), y]}
    result = jacobian(function, has_aux=True)(x, y)
    assert_close(result, expected)
    assert not result[1]["aux"][0].requires_grad


@BOTH
def test_independent_and_unused(jacobian):
    x, y = rand(3), rand(2)
    result = jacobian(lambda x, y: (x.sin(), y.exp()), (0, 1))(x, y)
    expected = (
        (torch.diag(x.cos()), torch.zeros(3, 2, dtype=torch.float64)),
        (torch.zeros(2, 3, dtype=torch.float64), torch.diag(y.exp())),
    )
    assert_close(result, expected)


@BOTH
def test_empty(jacobian):
    assert jacobian(torch.sin)(rand(0)).shape == (0, 0)
    assert jacobian(lambda x: x[:0])(rand(3)).shape == (0, 3)


@BOTH
def test_the_identity(jacobian):
    x = rand(3)
    assert_close(jacobian(lambda x: x)(x), torch.eye(3, dtype=torch.float64))


@BOTH
def test_float32_gives_float32(jacobian):
    assert jacobian(torch.sin)(rand(3, dtype=torch.float32)).dtype == torch.float32


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 100, None])
def test_jacrev_chunk_size(chunk_size):
    args = rand(2, 3), rand(3)

    def function(x, y):
        return matrix(x, y), x.sum() * y

    expected = tuple(
        plain(lambda x, y, i=i: function(x, y)[i], *args, argnums=(0, 1)) for i in range(2)
    )
    assert_close(jacrev(function, (0, 1), chunk_size=chunk_size)(*args), expected)


def test_jacfwd_that_forbids_to_draw():
    x = rand(4)
    noisy = lambda x: x * torch.rand(4)
    message = """functorch_ext.jacfwd: called random operation aten::rand while randomness='error'. Pass randomness='same' to jacfwd to draw once for all columns, or randomness='different' to draw anew for each."""
    assert_failure(lambda: jacfwd(noisy)(x), RuntimeError, message)
    assert_failure(lambda: jacfwd(noisy, chunk_size=2)(x), RuntimeError, message)
    mapped = lambda: vmap(jacfwd(noisy), randomness="different")(rand(2, 4))
    assert_failure(mapped, RuntimeError, message)
    inner = lambda x: vmap(lambda x: F.dropout(x, 0.5), randomness="different")(x)
    assert "while randomness='error'" in failure(lambda: jacfwd(inner)(x), RuntimeError)

    assert jacfwd(lambda x: F.dropout(x, 0.5, training=False))(x).equal(torch.eye(4).double())
    assert hessian(lambda x: F.dropout(x, 0.5).sum() ** 2)(x).shape == (4, 4)
    assert jacfwd(lambda x: jacfwd(noisy, randomness="same")(x), randomness="same")(x).eq(0).all()


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_jacfwd_randomness(randomness):
    x = rand(4)
    dropout = torch.nn.functional.dropout
    found = jacfwd(lambda x: dropout(x, 0.5), randomness=randomness)(x).diagonal()
    assert set(found.tolist()) <= {0.0, 2.0}


def test_no_graph_when_nobody_needs_it_and_a_graph_when_one_does():
    x, w = rand(3), rand(3, requires_grad=True)
    for transform in (jacrev, jacfwd):
        assert not transform(torch.sin)(x).requires_grad
        jacobian = transform(lambda x: (w * x).sin())(x)
        expected = torch.autograd.grad((w * (w * x).cos()).sum(), w)
        assert_close(torch.autograd.grad(jacobian.sum(), w), expected)


def test_the_pieces_make_the_jacobian():
    x, y = rand(2, 3), rand(3)
    basis = torch.eye(6, dtype=torch.float64).view(6, 2, 3)
    columns = vmap(lambda t: jvp(lambda x: matrix(x, y), (x,), (t,))[1], out_dims=-1)(basis)
    assert_close(columns.view(2, 2, 2, 3), plain(matrix, x, y))
    pullback = vjp(lambda x: matrix(x, y), x)[1]
    rows = vmap(pullback)(torch.eye(4, dtype=torch.float64).view(4, 2, 2))[0]
    assert_close(rows.view(2, 2, 2, 3), plain(matrix, x, y))


def scalar(x, y):
    return matrix(x, y).sin().sum()


@pytest.mark.parametrize("outer", [jacrev, jacfwd])
@pytest.mark.parametrize("inner", [jacrev, jacfwd])
def test_compositions_are_the_hessian(outer, inner):
    x, y = rand(2, 3), rand(3)
    assert_close(outer(inner(scalar))(x, y), oracle.hessian(scalar)(x, y).detach())


def test_hessian_of_a_vector_function():
    x = rand(3)

    def function(x):
        return (x.cumsum(0) * x.prod()).sin()[:2]

    assert_close(hessian(function)(x), oracle.hessian(function)(x).detach())


def test_hessian_argnums():
    x, y = rand(2, 3), rand(3)

    def second(outer, inner):
        return oracle.jacobian(oracle.jacobian(scalar, inner), outer)(x, y).detach()

    assert_close(hessian(scalar, 1)(x, y), second(1, 1))
    # first index: the inner derivative; second index: the outer one
    expected = tuple(tuple(second(outer, inner) for outer in range(2)) for inner in range(2))
    assert_close(hessian(scalar, (0, 1))(x, y), expected)


def test_hessian_of_a_tree():
    x, y = rand(2, 3), rand(3)
    actual = hessian(lambda tree: scalar(tree["x"], tree["y"]))({"x": x, "y": y})
    rows = hessian(scalar, (0, 1))(x, y)
    for i, outer in enumerate("xy"):
        for j, inner in enumerate("xy"):
            assert_close(actual[outer][inner], rows[i][j])


def test_hessian_has_aux():
    x, y = rand(2, 3), rand(3)
    second, aux = hessian(lambda x, y: (scalar(x, y), {"a": x.exp()}), has_aux=True)(x, y)
    assert_close(second, oracle.hessian(scalar)(x, y).detach())
    assert_close(aux, {"a": x.exp()})


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 100, None])
def test_hessian_chunk_size(chunk_size):
    x, y = rand(2, 3), rand(3)
    actual = hessian(scalar, chunk_size=chunk_size)(x, y)
    assert_close(actual, oracle.hessian(scalar)(x, y).detach())


@pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian])
def test_vmap(transform):
    x, y = rand(4, 2, 3), rand(3)
    plain_transform = oracle.hessian if transform is hessian else oracle.jacobian
    expected = loop(lambda x: plain_transform(matrix)(x, y).detach())(x)
    assert_close(vmap(transform(matrix), (0, None))(x, y), expected)


@BOTH
def test_over_vmap(jacobian):
    x, w = rand(4, 3), rand(3)

    def function(w, mapped):
        return mapped(lambda x: (x * w).sin().prod())(x)

    actual = jacobian(lambda w: function(w, vmap))(w)
    assert_close(actual, plain(lambda w: function(w, loop), w))


def test_third_derivative():
    x = rand(2)

    def function(x):
        return (x.sin() * x.flip(0)).prod()

    expected = oracle.jacobian(oracle.hessian(function))(x).detach()
    for first in (jacrev, jacfwd):
        for second in (jacrev, jacfwd):
            for third in (jacrev, jacfwd):
                assert_close(first(second(third(function)))(x), expected)


def along(func):
    return lambda x: jvp(grad(func), (x,), (x,))


@pytest.mark.parametrize("transform", [jacfwd, hessian, along])
def test_forward_mode_leaves_inference_mode_for_what_it_differentiates(transform):
    f = lambda x: (x.sin() * x).sum()
    x = rand(3)
    with torch.inference_mode():
        inside = transform(f)(x + 0)
        assert torch.is_inference_mode_enabled()
    assert_close(inside, transform(f)(x))


@pytest.mark.parametrize(
    "write",
    [
        lambda x, index: torch.zeros(3, dtype=x.dtype).fill_(x[0]),
        lambda x, index: torch.zeros(3, dtype=x.dtype).index_put_((index,), x, accumulate=True),
        lambda x, index: torch.zeros(3, dtype=x.dtype).copy_(x),
        lambda x, index: grad(lambda x: (x[index] ** 3).sum())(x),
        lambda x, index: grad(lambda x: (x[index > 0] ** 3).sum())(x),
    ],
)
def test_jacfwd_of_writes_into_what_has_no_tangent(write):
    x, index = rand(3), torch.tensor([0, 2, 2])
    assert_close(jacfwd(lambda x: write(x, index))(x), jacrev(lambda x: write(x, index))(x))
    xs = rand(2, 3)
    expected = torch.stack([jacrev(lambda x: write(x, index))(x) for x in xs])
    assert_close(vmap(jacfwd(lambda x: write(x, index)))(xs), expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda z: z.conj(),
        lambda z: z.conj()[1:3].imag,
        lambda z: z.reshape(2, 3).mH.real,
        lambda z: torch.fft.hfft(z.real),
        lambda z: torch.fft.irfft(z).sin(),
    ],
)
def test_conjugation_that_is_put_off(function):
    x = rand(6)

    def real(x):
        output = function(torch.complex(x, x.sin()))
        return torch.view_as_real(output.resolve_conj()) if output.is_complex() else output

    def total(x):
        return (real(x) ** 3).sum()

    assert_close(jacfwd(real)(x), plain(real, x))
    assert_close(hessian(total)(x), oracle.hessian(total)(x).detach())
    xs = rand(2, 6)
    assert_close(vmap(hessian(total))(xs), loop(lambda x: oracle.hessian(total)(x).detach())(xs))


def test_inputs_whose_conjugation_is_put_off():
    def total(z):
        return ((z * z).real.sin() + z.imag**3).sum()

    z = rand(3, dtype=torch.complex128)
    for late, resolved in ((z.conj(), z.conj_physical()), (z.conj().imag, -z.imag)):
        function = total if late.is_complex() else lambda x: (x**3).sum()
        for nested in (hessian(function), jacfwd(jacfwd(function)), jacfwd(function)):
            assert_close(nested(late), nested(resolved))
        assert_close(
            jvp(grad(function), (late,), (resolved,)), jvp(grad(function), (resolved,), (late,))
        )


@pytest.mark.parametrize(
    "loss",
    [
        torch.nn.functional.mse_loss,
        torch.nn.functional.smooth_l1_loss,
        torch.nn.functional.binary_cross_entropy_with_logits,
    ],
)
def test_hessians_of_losses_by_one_of_their_arguments(loss):
    x, target = rand(3), torch.rand(3, dtype=torch.float64)

    def squared(x):
        return loss(x, target) ** 2

    expected = oracle.hessian(squared)(x).detach()
    assert_close(hessian(squared)(x), expected)
    assert_close(jvp(grad(squared), (x,), (target,))[1], expected @ target)
