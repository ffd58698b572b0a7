"""vmap: every form of in_dims, out_dims and inputs, against a Python loop over the samples."""

import collections
import functools

import pytest
import torch

from functorch_ext import grad, vmap
from test.oracle import assert_close, loop, rand

Point = collections.namedtuple("Point", ["x", "y"])


def sum_leaves(tree):
    return sum(tree.values()) if isinstance(tree, dict) else sum(tree)


def nested_dict(tree, scale):
    return {"deep": {"sum": tree["a"]["b"] + scale * tree["c"][0]}, "list": [tree["c"][1].sin()]}


NESTED = {"a": {"b": rand(3, 4)}, "c": [rand(4, 3), rand(3)]}

IN_DIMS = {
    # name: (function, arguments, in_dims)
    "default": (torch.mul, (rand(3, 2), rand(3, 2)), 0),
    "int for all": (torch.mul, (rand(2, 3), rand(2, 3)), 1),
    "negative": (torch.mul, (rand(2, 3), rand(2, 3)), -1),
    "negative first": (torch.mul, (rand(3, 2), rand(3, 2)), -2),
    "tuple": (torch.mul, (rand(3, 2), rand(2, 3)), (0, 1)),
    "tuple mixed signs": (torch.mul, (rand(3, 2), rand(2, 3)), (-2, -1)),
    "None first": (torch.mul, (rand(2), rand(2, 3)), (None, 1)),
    "None last": (torch.mul, (rand(2, 3), rand(2)), (-1, None)),
    "middle": (torch.mul, (rand(2, 3, 4), rand(4)), (1, None)),
    "scalars": (torch.mul, (rand(3), rand(3)), 0),
    "number unmapped": (torch.mul, (rand(3), 2.5), (0, None)),
    "tuple argument": (sum_leaves, ((rand(3, 2), rand(3, 2)),), 0),
    "tuple of dims": (sum_leaves, ((rand(3, 2), rand(2, 3)),), ((0, 1),)),
    "dict of dims": (sum_leaves, ({"a": rand(3, 2), "b": rand(2, 3)},), ({"a": 0, "b": -1},)),
    "dict with None": (sum_leaves, ({"a": rand(3, 2), "b": rand(2)},), ({"a": 0, "b": None},)),
    "None covers a subtree": (
        lambda x, tree: x + tree["a"] * tree["b"][0],
        (rand(3, 2), {"a": rand(2), "b": [rand(2)]}),
        (0, None),
    ),
    "int covers a subtree": (
        lambda x, tree: x + tree["a"] * tree["b"][0],
        (rand(3, 2), {"a": rand(2, 3), "b": [rand(2, 3)]}),
        (0, 1),
    ),
    "namedtuple": (
        lambda p: Point(p.x + p.y, p.x - p.y),
        (Point(rand(3, 2), rand(2, 3)),),
        (Point(0, 1),),
    ),
    "nested": (nested_dict, (NESTED, rand(4)), ({"a": {"b": 0}, "c": [1, 0]}, None)),
}


def test_containers_that_the_function_changes_are_copies():
    mapped, shared, inner = {"x": rand(3, 2)}, {"x": rand(2), "more": [rand(2)]}, []

    def change(mapped, shared):
        mapped["x"] = shared["x"] = mapped["x"] + shared["more"].pop()
        inner.append((mapped, shared))
        return {"y": (mapped["x"], [shared["x"]])}

    result = vmap(change, in_dims=(0, None))(mapped, shared)
    assert mapped["x"].shape == (3, 2) and shared["x"].shape == (2,) and len(shared["more"]) == 1
    assert_close(result, {"y": (mapped["x"] + shared["more"][0], [result["y"][0]])})


def test_a_container_that_holds_itself():
    endless = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        vmap(torch.sin)(endless)


@pytest.mark.parametrize("name", IN_DIMS)
def test_in_dims(name):
    function, args, in_dims = IN_DIMS[name]
    assert_close(vmap(function, in_dims)(*args), loop(function, in_dims)(*args))


def two_outputs(x):
    return x.sin(), (x[:, 0], x[0].exp())


OUT_DIMS = {
    "default": (torch.sin, 0),
    "one": (torch.sin, 1),
    "last": (torch.sin, -1),
    "before last": (torch.sin, -2),
    "first by its negative": (torch.sin, -3),
    "tuple of one": (lambda x: (x.sin(),), (1,)),
    "int for all": (lambda x: (x.sin(), x.cos()), -1),
    "tuple": (lambda x: (x.sin(), x.cos()), (0, -1)),
    "nested": (two_outputs, (2, (1, -1))),
    "prefix": (two_outputs, (1, -1)),
    "dict": (lambda x: {"a": x.sin(), "b": x.cos()}, {"a": 0, "b": 1}),
    "dict in a tuple": (lambda x: (x, {"a": x.sin(), "b": [x.cos()]}), (0, {"a": 1, "b": [2]})),
    "list": (lambda x: [x.sin(), x.cos()], [0, 2]),
    "scalar output": (torch.sum, 0),
    "namedtuple": (lambda x: Point(x, x.sum(0)), Point(1, 0)),
}


@pytest.mark.parametrize("in_dim", [0, 2, -2])
@pytest.mark.parametrize("name", OUT_DIMS)
def test_out_dims(name, in_dim):
    function, out_dims = OUT_DIMS[name]
    x = rand(4, 4, 4)
    assert_close(vmap(function, in_dim, out_dims)(x), loop(function, in_dim, out_dims)(x))


@pytest.mark.parametrize("constant", [3, 2.5, True, "text", None])
def test_python_constants_pass_where_out_dim_is_none(constant):
    x = rand(3, 2)
    value, passed = vmap(lambda x: (x.sin(), constant), out_dims=(0, None))(x)
    assert_close(value, x.sin())
    assert passed is constant


def test_unbatched_tensor_passes_where_out_dim_is_none():
    x, shared = rand(3, 2), rand(4)
    value, passed = vmap(lambda x: (x.sin(), shared.exp()), out_dims=(0, None))(x)
    assert_close((value, passed), (x.sin(), shared.exp()))


def test_kwargs_are_not_mapped():
    x, y = rand(3, 2), rand(3, 2)

    def outer(x, y):
        return x[:, None] * y[None].sum(-1)

    assert_close(vmap(outer)(x, y=y), torch.stack([outer(sample, y) for sample in x]))


KWARG_DIMS = {
    # name: (kwarg_dims, keyword arguments, the same for sample i)
    "mapped": ({"y": 0}, {"y": rand(3, 2)}, lambda k, i: {"y": k["y"][i]}),
    "last": ({"y": -1}, {"y": rand(2, 3)}, lambda k, i: {"y": k["y"][:, i]}),
    "None": ({"y": None}, {"y": rand(2)}, lambda k, i: k),
    "left out": ({"y": 1}, {"y": rand(2, 3), "z": rand(2)}, lambda k, i: {**k, "y": k["y"][:, i]}),
    "both": (
        {"y": 0, "z": 1},
        {"y": rand(3, 2), "z": rand(2, 3)},
        lambda k, i: {"y": k["y"][i], "z": k["z"][:, i]},
    ),
}


@pytest.mark.parametrize("name", KWARG_DIMS)
def test_kwarg_dims(name):
    kwarg_dims, kwargs, sample = KWARG_DIMS[name]
    x = rand(3, 2)

    def function(x, y, z=1.0):
        return x * y.exp() + z

    expected = torch.stack([function(x[i], **sample(kwargs, i)) for i in range(3)])
    assert_close(vmap(function, kwarg_dims=kwarg_dims)(x, **kwargs), expected)


def test_kwarg_dims_takes_a_tree():
    x, tree = rand(3, 2), {"a": rand(3, 2), "b": rand(2, 3)}
    actual = vmap(lambda x, tree: x * tree["a"] + tree["b"], kwarg_dims={"tree": {"a": 0, "b": 1}})
    assert_close(actual(x, tree=tree), x * tree["a"] + tree["b"].T)


def test_kwarg_dims_alone_gives_the_batch_size():
    x, y = rand(2), rand(3, 2)
    mapped = vmap(lambda x, y: x + y.sin(), in_dims=None, kwarg_dims={"y": 0})
    assert_close(mapped(x, y=y), x + y.sin())


def test_axis_size_when_nothing_is_mapped():
    x = rand(2)
    actual = vmap(torch.sin, in_dims=None, axis_size=4)(x)
    assert_close(actual, x.sin().expand(4, 2))
    assert_close(vmap(lambda: torch.arange(2), axis_size=3)(), torch.arange(2).expand(3, 2))


def test_axis_size_agrees_with_a_mapped_input():
    x = rand(4, 2)
    assert_close(vmap(torch.sin, axis_size=4)(x), x.sin())


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 7, 100, None])
@pytest.mark.parametrize("out_dims", [0, (-1, 0)])
def test_chunk_size(chunk_size, out_dims):
    def function(x, y, tree):
        return (x * y).cumsum(0), tree["a"] @ y

    args, in_dims = (rand(2, 5), rand(2), {"a": rand(5, 3, 2)}), (1, None, {"a": 0})
    actual = vmap(function, in_dims, out_dims, chunk_size=chunk_size)(*args)
    assert_close(actual, loop(function, in_dims, out_dims)(*args))


def test_chunk_size_bounds_the_samples_seen_at_once():
    starts = []
    vmap(lambda x: starts.append(1) or x, chunk_size=2)(rand(5))
    assert len(starts) == 3


@pytest.mark.parametrize("shape", [(0,), (0, 2), (0, 2, 3)])
def test_zero_batch(shape):
    x = rand(*shape)
    assert_close(vmap(lambda x: (x.sin(), x.sum()))(x), (x.sin(), rand(shape[0])))


def test_in_place_on_a_batched_tensor_is_seen_by_the_caller():
    x, y = rand(3, 2), rand(3, 2)
    expected = x + y
    returned = vmap(lambda x, y: x.add_(y))(x, y)
    assert_close(x, expected)
    assert_close(returned, expected)


def in_place_on_a_view(x):
    x = x.clone()
    x[0].mul_(2)
    x.T[1].add_(x[0])
    x[:, 0] = 7.0
    return x


def in_place_on_a_new_tensor(x):
    out = torch.zeros_like(x)
    out.copy_(x.sin())
    out[1] += x[0]
    return out


VIEWS = {
    "T": lambda x: x.T,
    "index": lambda x: x[0],
    "slice": lambda x: x[1:, ::2],
    "ellipsis": lambda x: x[..., None, 1],
    "view": lambda x: x[0].view(2, 2),
    "reshape": lambda x: x.T.reshape(2, 8),
    "permute": lambda x: x.permute(1, 0),
    "unbind": lambda x: torch.unbind(x, -1),
    "split": lambda x: torch.split(x, 3, 1),
    "chunk": lambda x: x.chunk(2, -1),
    "expand": lambda x: x[None].expand(2, -1, -1),
    "squeeze": lambda x: x[None].squeeze(0).unsqueeze(-1).squeeze(),
    "diagonal": lambda x: x.diagonal(1),
    "movedim": lambda x: x.movedim(0, -1),
    "flatten": lambda x: x.flatten().unflatten(0, (2, -1)),
    "in place on a view": in_place_on_a_view,
    "in place on a new tensor": in_place_on_a_new_tensor,
}


@pytest.mark.parametrize("in_dim", [0, 1, -1])
@pytest.mark.parametrize("name", VIEWS)
def test_views_and_in_place(name, in_dim):
    x = rand(4, 4, 4)
    assert_close(vmap(VIEWS[name], in_dim)(x), loop(VIEWS[name], in_dim)(x))


def test_a_view_shares_memory_with_the_input():
    x = rand(3, 2)
    assert vmap(lambda x: x[0])(x).data_ptr() == x.data_ptr()


def test_the_input_itself_as_the_output():
    x = rand(3, 2)
    assert_close(vmap(lambda x: x)(x), x)
    assert_close(vmap(lambda x: (x, x), -1, (0, 1))(x), (x.T, x))


@pytest.mark.parametrize("out_dim", [0, 1, -1])
def test_unbatched_output_is_expanded(out_dim):
    x, shared = rand(3, 2), rand(4, 5)
    actual = vmap(lambda x: (x, shared), out_dims=(0, out_dim))(x)[1]
    assert_close(actual, torch.stack([shared] * 3, out_dim))


def test_nested_with_closures_over_the_outer_batch():
    x, y, z = rand(3, 2), rand(2, 4), rand(5)

    def outer(x):
        def middle(y):
            return vmap(lambda z: (x.sum() * z + y * x).sin())(z)

        return vmap(middle, in_dims=1, out_dims=-1)(y)

    def outer_loop(x):
        def middle(y):
            return loop(lambda z: (x.sum() * z + y * x).sin())(z)

        return loop(middle, 1, -1)(y)

    assert_close(vmap(outer)(x), loop(outer_loop)(x))


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_nested_scalars(depth):
    x = rand(*range(2, 2 + depth))
    function = torch.sin
    for _ in range(depth):
        function = vmap(function, in_dims=-1, out_dims=-1)
    assert_close(function(x), x.sin())


def test_outer_product_by_nested_vmaps():
    x, y = rand(3), rand(4)
    outer = vmap(vmap(torch.mul, (None, 0)), (0, None))
    assert_close(outer(x, y), x[:, None] * y)


def test_as_decorator():
    @vmap
    def dot(x, y):
        return (x * y).sum()

    @functools.partial(vmap, in_dims=(1, None), out_dims=-1)
    def scale(x, y):
        """Scale."""
        return x * y

    x, y = rand(3, 2), rand(3, 2)
    assert_close(dot(x, y), (x * y).sum(-1))
    assert_close(scale(x, rand(1) * 0 + 2), x * 2)
    assert scale.__name__ == "scale" and scale.__doc__ == "Scale."


def test_functions_without_names():
    x = rand(3, 2)
    assert_close(vmap(functools.partial(torch.add, alpha=2))(x, x), 3 * x)
    assert_close(vmap(torch.nn.Tanh())(x), x.tanh())


def test_the_body_sees_one_sample():
    def check(x):
        assert x.shape == (2,) and x.dim() == 1 and x.numel() == 2 and len(x) == 2
        assert x.stride() == (1,) and x.dtype == torch.float64 and x.size(-1) == 2
        assert torch.is_tensor(x) and not x.requires_grad and "(" in repr(x)
        return x

    vmap(check)(rand(3, 2))


def test_outer_autograd_goes_through():
    x, w = rand(3, 2, requires_grad=True), rand(2, requires_grad=True)
    actual = torch.autograd.grad(vmap(lambda x: (x * w).sin().sum())(x).prod(), (x, w))
    assert_close(actual, torch.autograd.grad((x * w).sin().sum(-1).prod(), (x, w)))


@pytest.mark.parametrize("has_bias", [True, False])
def test_autocast_of_a_linear_layer(has_bias):
    layer, x = torch.nn.Linear(3, 2, bias=has_bias), torch.randn(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        output = vmap(layer)(x)
        gradient = vmap(grad(lambda sample: layer(sample).sum()))(x)
        expected = layer(x)
    assert output.dtype == expected.dtype == torch.bfloat16
    assert_close(output, expected)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, layer.weight.sum(0).expand(4, 3), rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("in_dim", [0, 1, 2])
def test_contiguous_samples(in_dim):
    xs = rand(4, 3, 2)

    def windows(x):
        copies = x.contiguous(), x.clone(memory_format=torch.contiguous_format)
        assert all(copy.is_contiguous() for copy in copies)
        return [copy.as_strided((2, 2), (1, 1)) for copy in copies]

    assert_close(vmap(windows, in_dim)(xs), loop(windows, in_dim)(xs))
