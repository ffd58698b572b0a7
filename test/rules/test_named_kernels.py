"""Operators that programs rarely call by name: kernels of convolution, forms of batch normalisation,
random operators with arguments that differ between samples."""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import FallbackWarning, grad, hessian, jvp, vmap
from test import oracle
from test.oracle import assert_close, loop, rand

aten = torch.ops.aten
nn_functions = torch._C._nn
BATCH = 3
pytestmark = pytest.mark.filterwarnings("error::functorch_ext.FallbackWarning")


CONVOLUTIONS = {
    "time first": (lambda x, w, b: torch.conv_tbc(x, w, b, 1), (5, 2, 3), (3, 3, 4), (4,)),
    "2d": (
        lambda x, w, b: nn_functions.thnn_conv2d(x, w, (3, 3), b, 2, 1),
        (2, 2, 5, 5),
        (3, 2, 3, 3),
        (3,),
    ),
    "3d": (
        lambda x, w, b: nn_functions.slow_conv3d(x, w, (2, 2, 2), b),
        (2, 2, 3, 3, 3),
        (3, 2, 2, 2, 2),
        (3,),
    ),
    "2d dilated": (
        lambda x, w, b: nn_functions.slow_conv_dilated2d(x, w, (2, 2), b, dilation=2),
        (2, 2, 5, 5),
        (3, 2, 2, 2),
        (3,),
    ),
    "3d dilated": (
        lambda x, w, b: nn_functions.slow_conv_dilated3d(x, w, (2, 2, 2), b, dilation=2),
        (1, 2, 3, 3, 3),
        (2, 2, 2, 2, 2),
        (2,),
    ),
    "2d transposed": (
        lambda x, w, b: nn_functions.slow_conv_transpose2d(x, w, (2, 2), b, 2, 1, 1),
        (2, 2, 4, 4),
        (2, 3, 2, 2),
        (3,),
    ),
    "3d transposed": (
        lambda x, w, b: nn_functions.slow_conv_transpose3d(x, w, (2, 2, 2), b, 2),
        (1, 2, 2, 2, 2),
        (2, 3, 2, 2, 2),
        (3,),
    ),
}


def scalar(function):
    return lambda *args: function(*args).sin().sum()


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("in_dims", [(0, 0, 0), (0, None, None), (None, 0, None)])
def test_kernels_of_convolution(name, in_dims):
    function, *shapes = CONVOLUTIONS[name]
    args = [
        rand(*shape) if dim is None else rand(BATCH, *shape)
        for shape, dim in zip(shapes, in_dims, strict=True)
    ]
    assert_close(vmap(function, in_dims)(*args), loop(function, in_dims)(*args))
    got = vmap(lambda *args: list(grad(scalar(function), (0, 1, 2))(*args)), in_dims)(*args)
    want = loop(lambda *args: [oracle.grad(scalar(function), i)(*args) for i in range(3)], in_dims)(
        *args
    )
    assert_close(got, want)
    tangents = vmap(
        lambda *args: jvp(scalar(function), args, tuple(x.cos() for x in args))[1], in_dims
    )(*args)
    products = loop(
        lambda *args: sum(
            (oracle.grad(scalar(function), i)(*args) * args[i].cos()).sum() for i in range(3)
        ),
        in_dims,
    )(*args)
    assert_close(tangents, products)


FORMS = {
    "functional": lambda x, w, b, mean, var: aten._native_batch_norm_legit_functional(
        x, w, b, mean, var, True, 0.1, 1e-5
    ),
    "evaluation": lambda x, w, b, mean, var: aten._native_batch_norm_legit_functional(
        x, w, b, mean, var, False, 0.1, 1e-5
    )[:1],
    "with update": lambda x, w, b, mean, var: aten._batch_norm_with_update_functional(
        x, w, b, mean, var, 0.1, 1e-5
    )[:3],
    "copies": lambda x, w, b, mean, var: [
        F.batch_norm(x, mean.clone(), var.clone(), w, b, training=True)
    ],
    "copies for instances": lambda x, w, b, mean, var: [
        F.instance_norm(x, mean.clone(), var.clone(), w, b)
    ],
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("statistics", [0, None])
def test_forms_of_batch_norm(name, statistics):
    form = FORMS[name]
    if statistics is None and "copies" in name:
        pytest.skip("copies of shared statistics are shared")
    x, w, b = rand(BATCH, 5, 4, 2), rand(BATCH, 4), rand(BATCH, 4)
    mean, var = rand(BATCH, 4), rand(BATCH, 4).abs() + 0.5
    if statistics is None:
        mean, var = mean[0], var[0]
    in_dims = (0, 0, 0, statistics, statistics)
    got = vmap(lambda *args: list(form(*args)), in_dims)(x, w, b, mean, var)
    assert_close(got, loop(lambda *args: list(form(*args)), in_dims)(x, w, b, mean, var))

    def loss(*args):
        return form(*args)[0].sin().sum()

    got = vmap(grad(loss), in_dims)(x, w, b, mean, var)
    assert_close(got, loop(oracle.grad(loss), in_dims)(x, w, b, mean, var))


def test_statistics_alone():
    x, mean, var = rand(BATCH, 5, 4, 2), rand(BATCH, 4), rand(BATCH, 4).abs()

    def statistics(x, mean, var):
        mean, var = mean.clone(), var.clone()
        return [*aten.batch_norm_update_stats(x, mean, var, 0.3), mean, var]

    assert_close(vmap(statistics)(x, mean, var), loop(statistics)(x, mean, var))


@pytest.mark.parametrize("shape", [(2, 4, 3), (1, 4, 2, 2)])
def test_group_norm_twice(shape):
    """Forward mode through its derivative, which PyTorch has no formula for."""
    x, w, b = rand(BATCH, *shape), rand(4), rand(4)

    def loss(x, w):
        return F.group_norm(x, 2, w, b).sin().sum()

    def plain(x):
        return oracle.hessian(lambda x: loss(x, w))(x)

    assert_close(hessian(lambda x: loss(x, w))(x[0]), plain(x[0]))
    assert_close(vmap(hessian(lambda x: loss(x, w)))(x), loop(plain)(x))
    got = jvp(lambda w: grad(loss, 1)(x[0], w), (w,), (w.cos(),))[1]
    assert_close(got, oracle.hessian(lambda w: loss(x[0], w))(w) @ w.cos())


def test_bounds_that_differ():
    bounds = torch.tensor([3, 10, 1000])
    x = torch.zeros(BATCH, 500)

    def draw(x, bound):
        return torch.randint_like(x, bound)

    found = vmap(draw, randomness="different")(x, bounds)
    assert found.dtype == x.dtype and (found == found.floor()).all()
    assert (found >= 0).all() and (found < bounds[:, None]).all()
    assert_close(found.mean(1) / (bounds - 1), torch.full((BATCH,), 0.5), 0.1)
    state = torch.get_rng_state()
    with pytest.warns(FallbackWarning, match="randint_like"):
        found = vmap(draw, randomness="same")(x, bounds)
    for i, bound in enumerate(bounds.tolist()):  # all from one state of the generator
        torch.set_rng_state(state)
        assert_close(found[i], torch.randint_like(x[i], bound))


@pytest.mark.parametrize("outer", ["same", "different"])
@pytest.mark.parametrize("inner", ["same", "different"])
def test_rrelu_nested(outer, inner):
    x = -torch.ones(BATCH, 4, 50)

    def function(x):
        return F.rrelu(x, 0.2, 0.8, training=True)

    found = -vmap(vmap(function, randomness=inner), randomness=outer)(x)
    assert (found >= 0.2).all() and (found <= 0.8).all()
    assert torch.equal(found[0, 0], found[0, 1]) == (inner == "same")
    assert torch.equal(found[0], found[1]) == (outer == "same")
    output, noise = vmap(
        lambda x: aten.rrelu_with_noise_functional(x, torch.zeros_like(x), 0.2, 0.8, True),
        randomness=inner,
    )(x[0])
    assert torch.equal(output[0], output[1]) == (inner == "same")
    assert_close(output, x[0] * noise)
