"""Linear layers, which autograd sees as one node of ours while a transform differentiates."""

import gc
import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import linear

from functorch_ext import grad, hessian, jacfwd, jacrev, jit, jvp, vjp, vmap
from test.modes import Seen
from test.oracle import assert_close, loop, rand

SHAPES = [(3,), (4, 3), (2, 4, 3), (0, 3)]


def _layer(x, weight, bias=None):
    return linear(x, weight, bias).sin().sum()


def _by_operators(x, weight, bias=None):
    """The same, of operators that aren't `linear`."""
    product = x @ weight.mT
    return (product if bias is None else product + bias).sin().sum()


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("argnums", [0, 1, (0, 1), (1, 2), (0, 1, 2)])
def test_gradients(shape, with_bias, argnums):
    if not with_bias and argnums not in (0, 1, (0, 1)):
        argnums = (0, 1)
    args = (rand(*shape), rand(5, 3), *([rand(5)] if with_bias else []))
    assert_close(grad(_layer, argnums)(*args), grad(_by_operators, argnums)(*args))


@pytest.mark.parametrize("shape", [(2, 0), (2, 4, 0), (2, 1, 4, 0), (2, 0, 0)])
@pytest.mark.parametrize("outputs", [0, 5])
@pytest.mark.parametrize("in_dims", [(0, None, None), (0, 0, 0), (None, 0, None)])
def test_no_features(shape, outputs, in_dims):
    sizes = (shape, (outputs, shape[-1]), (outputs,))
    args = [rand(*(size if dim is None else (4, *size))) for size, dim in zip(sizes, in_dims)]
    expected = loop(grad(_by_operators, (0, 1, 2)), in_dims)(*args)
    assert_close(vmap(grad(_layer, (0, 1, 2)), in_dims)(*args), expected)


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3), (2, 1, 4, 3)])
def test_no_outputs(shape):
    args = rand(*shape), rand(0, 3), rand(0)
    assert_close(grad(_layer, (0, 1, 2))(*args), grad(_by_operators, (0, 1, 2))(*args))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "in_dims", [(0, None, None), (0, 0, 0), (None, 0, 0), (0, 0, None), (0, None, 0)]
)
@pytest.mark.parametrize(
    "nest",
    [
        lambda f, d: vmap(grad(f, (0, 1, 2)), d),
        lambda f, d: grad(lambda *a: vmap(f, d)(*a).sum(), (0, 1, 2)),
        lambda f, d: grad(
            lambda *a: vmap(lambda *b: sum(g.sin().sum() for g in grad(f, (0, 1, 2))(*b)), d)(
                *a
            ).sum(),
            (0, 1, 2),
        ),
    ],
    ids=["vmap(grad)", "grad(vmap)", "grad(vmap(grad))"],
)
def test_samples(shape, in_dims, nest):
    sizes = (shape, (5, 3), (5,))
    args = [rand(*(size if dim is None else (4, *size))) for size, dim in zip(sizes, in_dims)]
    assert_close(nest(_layer, in_dims)(*args), nest(_by_operators, in_dims)(*args))


@pytest.mark.parametrize(
    "derivative",
    [
        jacrev,
        jacfwd,
        hessian,
        lambda f, n: jacfwd(jacfwd(f, n), n),
        lambda f, n: jacrev(jacrev(f, n), n),
    ],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_jacobians(shape, derivative):
    args = rand(*shape), rand(5, 3), rand(5)
    for argnum in range(3):
        assert_close(derivative(_layer, argnum)(*args), derivative(_by_operators, argnum)(*args))


def test_backward_passes_that_record():
    """The user's own second backward pass, inside vmap and outside."""
    x, weight, bias = rand(6, 4, 3), rand(5, 3), rand(5)

    def penalty(layer):
        def of_sample(x):
            x = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(layer(x, weight, bias), x, create_graph=True)
            return torch.autograd.grad(slope.square().sum(), x)[0]

        return of_sample

    assert_close(vmap(penalty(_layer))(x), vmap(penalty(_by_operators))(x))


def test_tangents_of_cotangents():
    x, weight, bias, t = rand(4, 3), rand(5, 3), rand(5), rand(4, 5)

    def pulled(layer):
        _, pullback = vjp(lambda *args: layer(*args), x, weight, bias)
        return jvp(pullback, (t,), (rand(4, 5),))

    torch.manual_seed(0)
    expected = pulled(lambda x, w, b: x @ w.mT + b)
    torch.manual_seed(0)
    assert_close(pulled(linear), expected)


def test_strides_dont_matter():
    x, weight = rand(3, 4).mT, rand(3, 5).mT
    assert_close(grad(_layer, (0, 1))(x, weight), grad(_by_operators, (0, 1))(x, weight))


def test_a_parameter_changed_before_the_backward_pass():
    """As native nodes do, ours sees that what it saved was written to."""
    x, weight = rand(4, 3), rand(5, 3)

    def loss(x):
        w = weight.clone()
        y = linear(x, w).sum()
        w.mul_(2)
        return y

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        grad(loss)(x)


def test_hooks_on_saved_tensors_see_the_layers():
    seen = []
    pack = lambda tensor: (seen.append(tuple(tensor.shape)), tensor)[1]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        grad(lambda x, w: linear(x, w).sum(), (0, 1))(rand(4, 3), rand(5, 3))
    assert (4, 3) in seen and (5, 3) in seen


def test_what_the_layers_saved_is_freed():
    class Box:
        def __init__(self, tensor):
            self.tensor = tensor

    boxes = weakref.WeakSet()

    def pack(tensor):
        box = Box(tensor)
        boxes.add(box)
        return box

    kept = []

    def loss(x, w):
        kept.append(linear(x, w))
        return kept[0].sum()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        grad(loss, (0, 1))(rand(4, 3), rand(5, 3))
    gc.collect()
    assert kept and not boxes


def test_a_second_backward_pass_says_that_the_first_freed_the_graph():
    def twice(x):
        leaf = x.clone().requires_grad_()
        y = linear(leaf, weight).sum()
        torch.autograd.grad(y, leaf)
        return torch.autograd.grad(y, leaf)[0].sum()

    weight = rand(5, 3)
    with pytest.raises(RuntimeError, match="second time"):
        vmap(twice)(rand(2, 4, 3))


def test_meta_tensors():
    x, weight = torch.empty(2, 4, 3, device="meta"), torch.empty(5, 3, device="meta")
    assert grad(_layer, 1)(x, weight).shape == (5, 3)
    assert vmap(grad(_layer, 1), (0, None))(x, weight).shape == (2, 5, 3)


def test_a_function_of_the_program_called_linear():
    """A node is called after its class, and what is known of ours must not be taken for known."""

    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        def backward(ctx, cotangent):
            (x,) = ctx.saved_tensors
            if torch.is_grad_enabled():
                return 2 * x * cotangent
            return 2 * x.detach() * cotangent.detach()

    x, v = rand(4), rand(4)
    slope = lambda y: (vmap(grad(Linear.apply))(y) * v).sum()
    assert_close(grad(slope)(x), 2 * v)


def test_autocast_goes_by_plain_linear():
    x, weight, bias = torch.randn(4, 3), torch.randn(5, 3), torch.randn(5)

    def layer(weight):
        with torch.autocast("cpu", torch.bfloat16):
            y = linear(x, weight, bias)
        assert y.dtype == torch.bfloat16
        return y.float().sum()

    assert grad(layer)(weight).dtype == torch.float32


def test_shapes_that_dont_fit_are_errors_of_plain_linear():
    for shapes in [((4, 2), (5, 3), (5,)), ((4, 3), (5, 3), (4,)), ((4, 3), (2, 5, 3), (5,))]:
        args = [rand(*shape) for shape in shapes]
        with pytest.raises(RuntimeError) as plain:
            linear(*args)
        with pytest.raises(RuntimeError) as ours:
            grad(_layer)(*args)
        assert str(ours.value) == str(plain.value)


def test_a_trace_has_pytorchs_operators():
    graph = make_fx(grad(_layer, (0, 1, 2)))(rand(4, 3), rand(5, 3), rand(5))
    args = rand(4, 3), rand(5, 3), rand(5)
    assert_close(graph(*args), grad(_by_operators, (0, 1, 2))(*args))
    assert "linear" not in graph.code


def _per_sample(layer, in_dims=(0, None, None)):
    return vmap(grad(lambda *args: layer(*args).sin().sum(), (0, 1, 2)), in_dims)


def test_a_mode_around_a_transform_sees_a_layer_in_one_node():
    """Of a vector for each sample no gradient of the bias is summed, over one row."""
    args = rand(4, 3), rand(5, 3), rand(5)
    with Seen() as seen:
        found = _per_sample(linear)(*args)
    assert seen.names.count("sum") == 1 and "addmm" in seen.names  # of the loss
    assert_close(found, _per_sample(lambda x, w, b: w @ x + b)(*args))


def test_a_mode_inside_a_transform_sees_what_pytorch_makes_of_a_layer():
    """Whatever modes are around."""
    args, inside = (rand(4, 3), rand(5, 3), rand(5)), []

    def layer(x, weight, bias):
        with Seen() as seen:
            output = linear(x, weight, bias)
        inside.append(seen.names)
        return output

    alone = _per_sample(layer)(*args)
    with Seen():
        around = _per_sample(layer)(*args)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _per_sample(layer)(*args)
    assert_close(around, alone)
    assert "t" in inside[0] and inside == 3 * inside[:1]


@pytest.mark.parametrize("tracing_mode", ["real", "fake", "symbolic"])
def test_traces_of_vectors(tracing_mode):
    args = rand(4, 3), rand(5, 3), rand(5)
    around = make_fx(_per_sample(linear), tracing_mode=tracing_mode)(*args)
    targets = [node.target for node in around.graph.nodes]
    assert targets.count(torch.ops.aten.sum.dim_IntList) <= 1
    expected = _per_sample(lambda x, w, b: w @ x + b)(*args)
    assert_close(around(*args), expected)

    def inside(x, weight, bias):
        traced = make_fx(linear, tracing_mode="real")(x, weight, bias)
        return traced(x, weight, bias)

    assert_close(_per_sample(inside)(*args), expected)


@pytest.mark.parametrize(
    "compiled",
    [
        lambda f: jit(f, backend="graph"),
        lambda f: torch.compile(f, backend="aot_eager"),
        lambda f: torch.compile(f, backend="aot_eager", dynamic=True),
    ],
    ids=["jit", "torch.compile", "dynamic"],
)
def test_compiled_around_and_inside(compiled):
    args = rand(4, 3), rand(5, 3), rand(5)
    expected = _per_sample(lambda x, w, b: w @ x + b)(*args)
    assert_close(compiled(_per_sample(linear))(*args), expected)
    assert_close(_per_sample(compiled(linear))(*args), expected)
