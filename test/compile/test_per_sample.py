"""Norms of per-sample gradients in one graph: right, and without the gradients that they save."""

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional

import functorch_ext
from functorch_ext import _ghost_formulas


@pytest.fixture(autouse=True)
def compile_anew():
    torch.compiler.reset()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(12, 12), nn.Parameter(torch.ones(12))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.layer(self.layer(x) * self.scale)


def frozen():
    model = nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)).eval()
    model[0].weight.requires_grad_(False)
    return model


def images(*layers):
    return nn.Sequential(nn.Unflatten(1, (1, 3, 4)), *layers, nn.Flatten())


# With a formula for each parameter.
KNOWN = {
    "linear": lambda: nn.Sequential(nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 4)),
    "sequence": lambda: nn.Sequential(nn.Unflatten(1, (2, 6)), nn.Linear(6, 5), nn.Flatten()),
    "convolution": lambda: images(nn.Conv2d(1, 2, 2, padding=1), nn.GroupNorm(2, 2), nn.ReLU()),
    "one_dimension": lambda: nn.Sequential(nn.Unflatten(1, (2, 6)), nn.Conv1d(2, 3, 2)),
    "norm": lambda: nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 3)),
}
OTHERS = {"tied": Tied, "frozen": frozen, "without_formula": lambda: nn.PReLU(12)}


def loss(output, targets):
    return (output.flatten(1).sum(1) - targets).square().mean()


def compiled(function, **options):
    return torch.compile(function, backend="aot_eager", fullgraph=True, **options)


@pytest.mark.parametrize("make", [*KNOWN.values(), *OTHERS.values()], ids=[*KNOWN, *OTHERS])
def test_norms_and_clipped_sum_are_one_graph(make):
    model = make().double()
    x, y = torch.randn(3, 12, dtype=torch.float64), torch.randn(3, dtype=torch.float64)

    def function(x, y):
        norms = functorch_ext.per_sample_grad_norms(model, loss)(x, y)
        return norms, functorch_ext.clipped_grad_sum(model, loss, 0.5)(x, y)

    torch.testing.assert_close(compiled(function)(x, y), function(x, y))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_made_outside_and_called_with_other_sizes(chunk_size):
    model = KNOWN["linear"]().double()
    of_norms = functorch_ext.per_sample_grad_norms(model, loss, chunk_size=chunk_size)
    of_sum = functorch_ext.clipped_grad_sum(model, loss, 0.5, chunk_size=chunk_size)
    for function in (of_norms, of_sum):
        traced = compiled(function, dynamic=True)
        for count in (3, 5):
            x = torch.randn(count, 12, dtype=torch.float64)
            y = torch.randn(count, dtype=torch.float64)
            torch.testing.assert_close(traced(x, y), function(x, y))


def test_containers_and_tokens():
    model = nn.Sequential(nn.Embedding(7, 5, padding_idx=0), nn.Flatten(), nn.Linear(15, 6))
    batch = (torch.randint(7, (4, 3)),)
    targets = {"mean": torch.randn(4), "scale": torch.rand(4)}
    of_both = lambda out, t: ((out.sum(1) - t["mean"]) * t["scale"]).square().sum()
    function = functorch_ext.per_sample_grad_norms(model, of_both)
    torch.testing.assert_close(compiled(function)(batch, targets), function(batch, targets))


@pytest.mark.parametrize("name", ["linear", "sequence", "norm"])
def test_graph_holds_no_gradient_of_a_sample(name, monkeypatch):
    # Of layers as small as these, the gradient is less work than the formula.
    monkeypatch.setattr(_ghost_formulas, "FEW_ELEMENTS", 0)
    model, shapes = KNOWN[name](), []
    views = (torch.ops.aten.expand.default, torch.ops.aten.view.default)

    def inspect(graph, inputs):
        made = [node.meta.get("val") for node in graph.graph.nodes if node.target not in views]
        shapes.extend(each.shape for each in made if isinstance(each, torch.Tensor))
        return graph.forward

    function = functorch_ext.per_sample_grad_norms(model, loss)
    backend = aot_autograd(fw_compiler=inspect)
    options = {"fullgraph": True, "dynamic": False}
    torch.compile(function, backend=backend, **options)(torch.randn(11, 12), torch.randn(11))
    of_weights = [(11, *each.shape) for each in model.parameters() if each.dim() > 1]
    assert shapes
    assert not [shape for shape in shapes if tuple(shape) in of_weights]


def test_error_is_as_eager():
    function = functorch_ext.per_sample_grad_norms(nn.Linear(4, 2), lambda out, y: out)
    x, y = torch.randn(3, 4), torch.randn(3)
    with pytest.raises(RuntimeError, match="Expected .* to return a scalar Tensor"):
        torch.compile(function, backend="eager")(x, y)


def test_chunks_of_measured_size_break_the_graph():
    function = functorch_ext.per_sample_grad_norms(nn.Linear(4, 2), loss, chunk_size="64 MiB")
    x, y = torch.randn(3, 4), torch.randn(3)
    torch.testing.assert_close(torch.compile(function, backend="eager")(x, y), function(x, y))


def test_differentiated_once_more():
    weight = torch.randn(2, 4, dtype=torch.float64)
    x, y = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    model = nn.Linear(4, 2).double()

    def function(weight):
        def total(weight):
            scaled = functional.linear(x, weight, model.bias.detach())
            norms = functorch_ext.per_sample_grad_norms(model, loss)(scaled.repeat(1, 2), y)
            return norms.sum()

        return functorch_ext.grad(total)(weight)

    torch.testing.assert_close(compiled(function)(weight), function(weight))
