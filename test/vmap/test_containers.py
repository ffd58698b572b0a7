"""Whatever is registered with PyTorch's or optree's pytrees is a container of every transform."""

import dataclasses
import uuid
from collections import OrderedDict, namedtuple
from functools import partial
from typing import Any

import optree
import pytest
import torch
from torch.nn.functional import mse_loss
from torch.utils import _pytree as torch_pytree

import functorch_ext
from functorch_ext import (
    functional_call,
    functionalize,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)
from test import oracle


@dataclasses.dataclass
class State:
    """Registered by PyTorch's helper, which leaves out fields that are None."""

    mean: Any
    scale: Any = None
    note: Any = None


class Output(OrderedDict):
    """A dict that is a dataclass too, as the outputs of language models are."""

    def __getattr__(self, name):
        return self[name]


class Parameters(dict):
    pass


class Particle:
    """Registered with optree, for everybody."""

    def __init__(self, place, speed):
        self.place, self.speed = place, speed


class Labelled:
    """Keeps something that is no tensor, and that a transform must hand on."""

    def __init__(self, value, label):
        self.value, self.label = value, label


@dataclasses.dataclass(frozen=True)
class Config:
    power: int


Named = namedtuple("Named", ["left", "right"])

torch_pytree.register_dataclass(State)
torch_pytree.register_pytree_node(
    Output, lambda d: (list(d.values()), list(d)), lambda v, k: Output(zip(k, v, strict=True))
)
torch_pytree.register_pytree_node(
    Parameters,
    lambda d: (list(d.values()), list(d)),
    lambda v, k: Parameters(zip(k, v, strict=True)),
)
torch_pytree.register_pytree_node(
    Labelled, lambda o: ([o.value], o.label), lambda v, label: Labelled(v[0], label)
)
torch_pytree.register_constant(Config)
optree.register_pytree_node(
    Particle,
    lambda p: ((p.place, p.speed), None),
    lambda _, children: Particle(*children),
    namespace=optree.registry.__GLOBAL_NAMESPACE,
)

# How to make each of two tensors, and how to get these back.
KINDS = {
    "dataclass": (State, lambda c: (c.mean, c.scale)),
    "ordered dict": (lambda a, b: Output(a=a, b=b), lambda c: (c.a, c.b)),
    "dict": (lambda a, b: Parameters(z=a, y=b), lambda c: (c["z"], c["y"])),
    "optree": (Particle, lambda c: (c.place, c.speed)),
    "labelled": (lambda a, b: Labelled([a, b], "x"), lambda c: tuple(c.value)),
    "nested": (lambda a, b: {"s": State(a, Output(b=b))}, lambda c: (c["s"].mean, c["s"].scale.b)),
    "in a tuple": (lambda a, b: (State(a), [Config(2), b]), lambda c: (c[0].mean, c[1][1])),
    "named tuple": (Named, tuple),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request):
    return request.param


def assert_same(actual, expected):
    """Equal tensors, in whatever containers."""
    leaves = torch_pytree.tree_leaves
    oracle.assert_close(leaves(actual), leaves(expected))


def _inputs():
    torch.manual_seed(0)
    return torch.randn(3, 4, dtype=torch.double), torch.randn(3, 4, dtype=torch.double)


def _pair(a, b):
    return a * b.sin(), (a - b).exp()


def test_vmap(kind):
    make, parts = kind
    a, b = _inputs()
    func = lambda tree: make(*_pair(*parts(tree)))
    expected = oracle.loop(_pair)(a, b)
    for chunk_size in (None, 2):
        result = vmap(func, chunk_size=chunk_size)(make(a, b))
        assert type(result) is type(make(a, b))
        assert_same(parts(result), expected)
    assert_same(parts(vmap(func, in_dims=1, out_dims=-1)(make(a.T, b.T))), [e.T for e in expected])


def test_dims_as_containers(kind):
    make, parts = kind
    a, b = _inputs()
    func = lambda tree: make(*_pair(*parts(tree)))
    result = vmap(func, in_dims=(make(1, None),), out_dims=make(-1, 0))(make(a.T, b[0]))
    expected = oracle.loop(_pair, in_dims=(0, None), out_dims=(1, 0))(a, b[0])
    assert_same(parts(result), expected)
    mapped = vmap(lambda x, *, tree: x + parts(tree)[0], kwarg_dims={"tree": make(None, 0)})
    assert_same(mapped(a, tree=make(a[0], b)), a + a[0])


def test_derivatives(kind):
    make, parts = kind
    a, b = _inputs()
    number = lambda a, b: sum(part.sum() for part in _pair(a, b))
    of_tree = lambda tree: number(*parts(tree))
    tree = make(a, b)
    expected = grad(number, argnums=(0, 1))(a, b)
    assert_same(parts(grad(of_tree)(tree)), expected)
    gradient, (_, aux) = grad_and_value(lambda t: (of_tree(t), t), has_aux=True)(tree)
    assert_same(parts(gradient), expected)
    assert_same(parts(aux), (a, b))
    func = lambda tree: make(*_pair(*parts(tree)))
    output, pullback = vjp(func, tree)
    assert_same(parts(output), _pair(a, b))
    assert_same(parts(pullback(make(a, b))[0]), vjp(_pair, a, b)[1]((a, b)))
    pushed = jvp(_pair, (a, b), (b, a))
    assert_same([parts(each) for each in jvp(func, (tree,), (make(b, a),))], pushed)
    output, push = linearize(func, tree)
    assert_same([parts(output), parts(push(make(b, a)))], pushed)
    per_sample = parts(vmap(grad(of_tree))(tree))
    assert_same(per_sample, expected)


def test_jacobians(kind):
    make, parts = kind
    a, b = _inputs()
    func = lambda tree: make(*_pair(*parts(tree)))
    for jacobian in (jacrev, jacfwd):
        result = parts(jacobian(func)(make(a, b)))
        assert_same([parts(row) for row in result], jacobian(_pair, argnums=(0, 1))(a, b))
    result = parts(hessian(lambda tree: _pair(*parts(tree))[0].sum())(make(a, b)))
    expected = hessian(lambda a, b: _pair(a, b)[0].sum(), argnums=(0, 1))(a, b)
    assert_same([parts(row) for row in result], expected)


def test_functionalize(kind):
    make, parts = kind
    a, b = _inputs()

    def func(tree):
        first, second = parts(tree)
        first = first.clone().add_(second)
        return make(first, second)

    assert_same(parts(functionalize(func)(make(a, b))), (a + b, b))


def test_modules():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 2)

        def forward(self, state):
            return Output(loss=mse_loss(self.linear(state.mean), state.scale), state=state)

    model = Model()
    data = State(torch.randn(3, 4), torch.randn(3, 2))
    loss = lambda parameters, state: functional_call(model, parameters, (state,)).loss
    parameters = Parameters(model.named_parameters())
    per_sample = vmap(grad(loss), in_dims=(None, 0))(parameters, data)
    assert type(per_sample) is Parameters
    for i in range(3):
        sample = model(State(data.mean[i], data.scale[i])).loss
        expected = torch.autograd.grad(sample, list(model.parameters()))
        assert_same([each[i] for each in per_sample.values()], expected)
    parameters, _ = stack_module_state([Model(), Model()])
    result = vmap(partial(functional_call, model), in_dims=(0, None))(parameters, (data,))
    assert result.loss.shape == (2,)
    assert result.state.mean.shape == (2, 3, 4)


def test_registration_counts_from_then_on():
    cls = type(f"Late{uuid.uuid4().hex}", (), {"__init__": lambda self, x: setattr(self, "x", x)})
    x = torch.randn(3)
    with pytest.raises(ValueError, match="is of type .*Late"):
        vmap(lambda late: late.x)(cls(x))
    torch_pytree.register_pytree_node(cls, lambda c: ([c.x], None), lambda v, _: cls(v[0]))
    assert_same(vmap(lambda late: cls(late.x * 2))(cls(x)).x, x * 2)
    assert_same(grad(lambda late: late.x.sum())(cls(x)).x, torch.ones(3))


def test_registration_that_replaces_or_ends():
    class Pair:
        def __init__(self, x, y):
            self.x, self.y = x, y

    x = torch.randn(3)
    register = torch_pytree._private_register_pytree_node
    register(Pair, lambda p: ([p.x, p.y], None), lambda v, _: Pair(*v))
    torch_pytree._deregister_pytree_node(Pair)
    with pytest.raises(ValueError, match="is of type .*Pair"):
        vmap(lambda pair: pair.x)(Pair(x, x))
    register(Pair, lambda p: ([p.x], p.y), lambda v, y: Pair(v[0], y))
    assert vmap(lambda pair: Pair(pair.x * 2, "new"))(Pair(x, "old")).y == "new"


def test_what_is_registered_nowhere_is_a_leaf():
    class Unknown(dict):
        pass

    unknown = Unknown(x=torch.ones(3))
    with pytest.raises(ValueError, match="is of type .*Unknown"):
        vmap(lambda each: each["x"])(unknown)
    result, passed = vmap(lambda x, each: (x, each), (0, None), (0, None))(torch.ones(3), unknown)
    assert passed is unknown


def test_dicts_are_matched_by_key():
    a, b = _inputs()
    func = lambda tree: {"z": tree["a"].sin(), "c": tree["b"].cos()}
    assert_same(
        jvp(func, ({"a": a, "b": b},), ({"b": b, "a": a},)),
        jvp(func, ({"a": a, "b": b},), ({"a": a, "b": b},)),
    )
    pullback = vjp(func, {"a": a, "b": b})[1]
    assert_same(pullback({"c": b, "z": a}), pullback({"z": a, "c": b}))
    result = vmap(func, in_dims=({"b": None, "a": 0},))({"a": a, "b": b})
    assert result["z"].shape == (3, 4) and result["c"].shape == (3, 3, 4)


def test_errors_name_the_leaf():
    state = State(torch.ones(3), torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"args\[0\]\['s'\]\.scale of shape \(\)"):
        vmap(lambda tree: tree["s"].mean)({"s": state})
    with pytest.raises(ValueError, match=r"kwargs\['s'\]\.scale of shape \(\)"):
        vmap(lambda x, s: x, kwarg_dims={"s": 0})(torch.ones(3), s=state)
    with pytest.raises(ValueError, match="in_dims is not compatible"):
        vmap(lambda state: state.mean, in_dims=(Named(0, 0),))(state)
    with pytest.raises(ValueError, match="out_dims is not compatible"):
        vmap(lambda x: State(x), out_dims=Named(0, 0))(torch.ones(3))


@pytest.mark.parametrize("kind", ["dataclass", "ordered dict", "labelled"])
def test_torch_func_agrees(kind):
    make, parts = KINDS[kind]
    a, b = _inputs()
    func = lambda tree: make(*_pair(*parts(tree)))
    number = lambda tree: sum(part.sum() for part in _pair(*parts(tree)))
    for name in ("vmap", "jacrev", "jacfwd"):
        ours, theirs = (
            getattr(each, name)(func)(make(a, b)) for each in (functorch_ext, torch.func)
        )
        assert torch_pytree.tree_structure(ours) == torch_pytree.tree_structure(theirs)
        assert_same(ours, theirs)
    assert_same(parts(grad(number)(make(a, b))), parts(torch.func.grad(number)(make(a, b))))
