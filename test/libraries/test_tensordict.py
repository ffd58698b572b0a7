"""TensorDict: a container whose batch size loses the mapped dimension, and has it again outside."""

import pytest
import torch

from functorch_ext import grad, vmap

tensordict = pytest.importorskip("tensordict")
TensorDict = tensordict.TensorDict


def data():
    return TensorDict({"a": torch.randn(3, 4, 5), "b": {"c": torch.randn(3, 4, 2)}}, [3, 4])


@pytest.mark.parametrize(("in_dim", "inside"), [(0, [4]), (1, [3])])
def test_batch_size_inside(in_dim, inside):
    seen = []

    def function(d):
        seen.append((d.batch_size, d["b"].batch_size, d["a"].shape))
        return d["a"].sum()

    vmap(function, in_dim)(data())
    size = torch.Size(inside)
    assert seen == [(size, size, torch.Size([*inside, 5]))]


@pytest.mark.parametrize("out_dim", [0, 1])
@pytest.mark.parametrize("in_dim", [0, 1])
def test_batch_size_of_an_output(in_dim, out_dim):
    d = data()
    result = vmap(lambda d: d.apply(lambda x: x * 2), in_dim, out_dim)(d)
    order = (0, 1) if in_dim == out_dim else (1, 0)
    size = torch.Size([(3, 4)[i] for i in order])
    assert type(result) is TensorDict and result.batch_size == size
    assert torch.equal(result["b", "c"], (d["b", "c"] * 2).permute(*order, 2))


def test_of_a_sample_without_batch_size():
    make = lambda x: TensorDict({"x": x, "y": {"z": x.sum()}}, [])
    result = vmap(make)(torch.randn(3, 4))
    assert result.batch_size == result["y"].batch_size == torch.Size([3])
    nested = vmap(vmap(make))(torch.randn(2, 3, 4))
    assert nested.batch_size == torch.Size([2, 3])


def test_in_chunks():
    d = data()
    result = vmap(lambda d: d.apply(lambda x: x * 2), chunk_size=2)(d)
    assert result.batch_size == torch.Size([3, 4])
    assert torch.equal(result["a"], d["a"] * 2)


def test_what_is_not_mapped_keeps_its_batch_size():
    d, x = data(), torch.randn(3)
    result = vmap(lambda d, x: d["a"].sum() * x, (None, 0))(d, x)
    torch.testing.assert_close(result, d["a"].sum() * x)


def test_gradients():
    parameters = TensorDict({"w": torch.randn(4), "b": torch.randn(())}, [])
    x = torch.randn(3, 4)
    gradients = vmap(grad(lambda p, x: (p["w"] * x).sum() + p["b"]), (None, 0))(parameters, x)
    assert type(gradients) is TensorDict and gradients.batch_size == torch.Size([3])
    assert torch.equal(gradients["w"], x) and torch.equal(gradients["b"], torch.ones(3))


def test_the_parameters_of_modules():
    modules, x = [torch.nn.Linear(4, 2) for _ in range(3)], torch.randn(4)
    stacked = TensorDict.from_modules(*modules, as_module=False)
    module = torch.nn.Linear(4, 2)

    def call(parameters, x):
        with parameters.to_module(module):
            return module(x)

    expected = torch.stack([each(x) for each in modules])
    torch.testing.assert_close(vmap(call, (0, None))(stacked, x), expected)
