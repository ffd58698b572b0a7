"""Per-sample gradients, their norms and clipped sums, against a loop of plain backward passes."""

import pytest
import torch
from torch import nn

import functorch_ext._ghost_formulas as formulas
import functorch_ext._ghost_norms as ghost
from functorch_ext import (
    clipped_grad_sum,
    functional_call,
    grad,
    jvp,
    per_sample_grad_norms,
    per_sample_grads,
    vmap,
)
from test.oracle import assert_close, rand

F = nn.functional


@pytest.fixture(autouse=True, params=["all", "wide"])
def layers_with_formulas(request, monkeypatch):
    """Small layers have formulas too, or have none."""
    if request.param == "all":
        monkeypatch.setattr(formulas, "FEW_ELEMENTS", 0)
    return request.param


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.mix = nn.Linear(4, 4)

    def forward(self, tokens):
        hidden = self.mix(self.embedding(tokens)).tanh()
        return (hidden @ self.embedding.weight.T).mean(1)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(3))
        self.twice = nn.Linear(3, 3)

    def forward(self, x):
        return self.twice(self.twice(x * self.scale).sin())


class TimeFirst(nn.Module):
    """As many steps as samples, with the steps in front."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x):
        return self.inner(x.transpose(0, 1)).tanh().sum(0)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x):
        return self.cells(x)[0].mean(1)


def tokens(*shape):
    return torch.randint(0, 7, shape)


N = 5
MODELS = {
    "mlp": (lambda: [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)], lambda: rand(N, 4)),
    "many positions": (lambda: [nn.Linear(4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(40, 3)], lambda: rand(N, 20, 4)),
    "few positions": (lambda: [nn.Linear(9, 8), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)], lambda: rand(N, 3, 9)),
    "conv2d": (
        lambda: [nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.GroupNorm(3, 6), nn.ReLU(), nn.Conv2d(6, 3, 2, dilation=2), nn.Flatten(), nn.Linear(12, 3)],
        lambda: rand(N, 4, 8, 8),
    ),
    "conv2d same": (lambda: [nn.Conv2d(2, 3, 3, padding="same"), nn.Flatten(), nn.Linear(48, 3)], lambda: rand(N, 2, 4, 4)),
    "conv1d": (lambda: [nn.Conv1d(4, 6, 3, stride=2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)], lambda: rand(N, 4, 8)),
    "conv3d": (lambda: [nn.Conv3d(1, 2, 2), nn.Flatten(), nn.Linear(16, 3)], lambda: rand(N, 1, 3, 3, 3)),
    "transposed": (lambda: [nn.ConvTranspose2d(2, 3, 2), nn.Flatten(), nn.Linear(48, 3)], lambda: rand(N, 2, 3, 3)),
    "embedding": (lambda: [nn.Embedding(7, 4, padding_idx=2), nn.LayerNorm(4), nn.Flatten(), nn.Linear(24, 3)], lambda: tokens(N, 6)),
    "layer norm": (lambda: [nn.LayerNorm((3, 4)), nn.Flatten(), nn.Linear(12, 3, bias=False)], lambda: rand(N, 3, 4)),
    "batch norm": (lambda: [nn.BatchNorm1d(4).eval(), nn.Linear(4, 3)], lambda: rand(N, 4)),
    "tied": (lambda: [Tied()], lambda: tokens(N, 6)),
    "used twice": (lambda: [Scaled()], lambda: rand(N, 3)),
    "time first": (lambda: [TimeFirst()], lambda: rand(N, N, 4)),
    "recurrent": (lambda: [Recurrent()], lambda: rand(N, 6, 4)),
    "attention": (lambda: [nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), nn.Flatten(), nn.Linear(12, 3)], lambda: rand(N, 3, 4)),
}  # fmt: skip


def made(name):
    torch.manual_seed(3)
    layers, inputs = MODELS[name]
    model = nn.Sequential(*layers()).double()
    batch = inputs()
    outputs = model(batch).shape[-1]
    return model, batch, torch.randint(0, outputs, (N,))


def naive(model, loss, batch, targets):
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    rows = []
    for i in range(len(batch)):
        value = loss(model(batch[i : i + 1]), targets[i : i + 1])
        rows.append(torch.autograd.grad(value, list(parameters.values())))
    return {name: torch.stack(column) for name, column in zip(parameters, zip(*rows))}


def norms_of(gradients):
    return (
        torch.stack([each.flatten(1).square().sum(1) for each in gradients.values()]).sum(0).sqrt()
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_gradients_norms_and_clipped_sums(name, chunk_size):
    model, batch, targets = made(name)
    loss = F.cross_entropy
    expected = naive(model, loss, batch, targets)
    got = per_sample_grads(model, loss, chunk_size=chunk_size)(batch, targets)
    assert_close(got, expected)
    norms = per_sample_grad_norms(model, loss, chunk_size=chunk_size)(batch, targets)
    assert_close(norms, norms_of(expected))
    check_clipped_sum(model, batch, targets, chunk_size)
    assert not any(each.requires_grad for each in [norms, *got.values()])


def chosen(monkeypatch, model, batch, targets):
    """The parameters left to formulas, and those that were differentiated by."""
    seen = []
    keep = ghost.GhostNorms.of_sample

    def watched(self, pulled):
        found = keep(self, pulled)
        names = {name for layer in self.layers for name in layer.names.values()}
        seen.append((names, set(found.gradients)))
        return found

    monkeypatch.setattr(ghost.GhostNorms, "of_sample", watched)
    per_sample_grad_norms(model, F.cross_entropy)(batch, targets)
    monkeypatch.undo()
    return seen[0]


WIDE = {
    "linear": (lambda: nn.Sequential(nn.Linear(8, 9), nn.Flatten(), nn.Linear(18, 5)), lambda: rand(N, 2, 8)),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(8, 16, 3, groups=2), nn.Flatten(), nn.Linear(16, 5)), lambda: rand(N, 8, 3, 3)),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(8, 16, 3, 2, 1), nn.Flatten(), nn.Linear(32, 5)), lambda: rand(N, 8, 3)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(24, 3)), lambda: tokens(N, 6)),
    "attention": (lambda: nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), nn.Flatten(), nn.Linear(48, 3)), lambda: rand(N, 3, 16)),
}  # fmt: skip


@pytest.mark.parametrize("layers_with_formulas", ["all"], indirect=True)
@pytest.mark.parametrize("name", WIDE)
def test_the_gradient_of_a_wide_layer_is_not_computed(monkeypatch, name):
    torch.manual_seed(3)
    make, inputs = WIDE[name]
    model, batch = make().double(), inputs()
    targets = torch.randint(0, 3, (N,))
    by_formula, by_gradient = chosen(monkeypatch, model, batch, targets)
    assert by_gradient == {n for n, _ in model.named_parameters() if ".norm" in n}
    assert by_formula | by_gradient == {n for n, _ in model.named_parameters()}
    expected = norms_of(naive(model, F.cross_entropy, batch, targets))
    assert_close(per_sample_grad_norms(model, F.cross_entropy)(batch, targets), expected)
    check_clipped_sum(model, batch, targets)


def check_clipped_sum(model, batch, targets, chunk_size=None):
    expected = naive(model, F.cross_entropy, batch, targets)
    norms = norms_of(expected)
    bound = norms.median().item()
    scales = (bound / norms).clamp(max=1.0)
    sums = {n: torch.tensordot(scales, each, dims=1) for n, each in expected.items()}
    clipped = clipped_grad_sum(model, F.cross_entropy, bound, chunk_size=chunk_size)
    assert_close(clipped(batch, targets), sums)


def test_the_gradient_of_a_narrow_layer_is_computed(monkeypatch):
    for name in ("many positions", "conv2d", "layer norm", "recurrent"):
        by_formula, by_gradient = chosen(monkeypatch, *made(name))
        assert any("0." in each for each in by_gradient) and not by_formula & by_gradient


@pytest.mark.parametrize("layers_with_formulas", ["all"], indirect=True)
def test_what_a_constant_turns_out_to_be_used_for_again(monkeypatch):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(5, 5)

        def forward(self, x):
            return self.inner(self.inner(x).sin()) + self.inner.bias.exp()

    model, batch, targets = Twice().double(), rand(N, 5), torch.randint(0, 5, (N,))
    by_formula, by_gradient = chosen(monkeypatch, model, batch, targets)
    assert not by_formula and by_gradient == {"inner.weight", "inner.bias"}
    check_clipped_sum(model, batch, targets)


@pytest.mark.parametrize("layers_with_formulas", ["all"], indirect=True)
def test_rounding_makes_no_norm_of_nan():
    # Cotangents that cancel: the norm is about zero, the products of pairs are not.
    layer, batch = nn.Linear(64, 64, bias=False), torch.randn(50, 1, 64).expand(-1, 8, -1)
    cotangents = torch.randn(50, 8, 64)
    cotangents -= cotangents.mean(1, keepdim=True)
    norms = per_sample_grad_norms(layer, lambda output, each: (output * each).sum())
    assert norms(batch, cotangents).max() < 1


def test_a_parameter_without_dimensions():
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.temperature = nn.Linear(3, 2), nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.layer(x).tanh() / self.temperature

    model, x, y = Tempered().double(), rand(5, 3), rand(5, 2)
    norms, clip = per_sample_grad_norms(model, F.mse_loss), clipped_grad_sum(model, F.mse_loss, 0.1)
    each = per_sample_grads(model, F.mse_loss)(x, y)
    expected = sum(grads.reshape(5, -1).square().sum(1) for grads in each.values()).sqrt()
    scales = (0.1 / expected).clamp(max=1)
    for _ in range(2):  # the second call knows of the first
        assert_close(norms(x, y), expected)
        sums = {name: torch.tensordot(scales, grads, 1) for name, grads in each.items()}
        assert_close(clip(x, y), sums)


def test_frozen_parameters_are_left_out():
    model, batch, targets = made("mlp")
    model[0].weight.requires_grad_(False)
    expected = naive(model, F.cross_entropy, batch, targets)
    assert "0.weight" not in expected
    assert_close(per_sample_grads(model, F.cross_entropy)(batch, targets), expected)
    norms = per_sample_grad_norms(model, F.cross_entropy)(batch, targets)
    assert_close(norms, norms_of(expected))


def test_several_arguments_and_containers():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x, y):
            return {"out": self.inner(x) * y}

    model = Two().double()
    x, y, goal = rand(N, 3), rand(N, 2), {"goal": rand(N, 2)}
    loss = lambda output, goal: F.mse_loss(output["out"], goal["goal"])
    got = per_sample_grads(model, loss)((x, y), goal)
    one = per_sample_grads(model, loss)((x[1:2], y[1:2]), {"goal": goal["goal"][1:2]})
    assert_close({n: each[1:2] for n, each in got.items()}, one)
    assert_close(per_sample_grad_norms(model, loss)((x, y), goal), norms_of(got))


def test_inside_other_transforms():
    model, batch, targets = made("mlp")
    loss = F.cross_entropy
    norms = per_sample_grad_norms(model, loss)
    explicit = lambda batch, targets: norms_of(per_sample_grads(model, loss)(batch, targets))
    batches, goals = rand(2, N, 4), torch.randint(0, 3, (2, N))
    expected = torch.stack([explicit(b, t) for b, t in zip(batches, goals)])
    assert_close(vmap(norms)(batches, goals), expected)
    by_input = lambda function: grad(lambda batch: function(batch, targets).sum())(batch)
    assert_close(by_input(norms), by_input(explicit))
    direction = torch.randn_like(batch)
    push = lambda function: jvp(lambda b: function(b, targets), (batch,), (direction,))[1]
    assert_close(push(norms), (by_input_rows(explicit, batch, targets) * direction).sum((1, 2)))


def test_differentiated_by_what_the_loss_closes_over():
    model, batch, targets = made("mlp")

    def by_temperature(function):
        def total(temperature):
            loss = lambda output, target: F.cross_entropy(output / temperature, target)
            return function(model, loss)(batch, targets).sum()

        return grad(total)(torch.tensor(1.5).double())

    explicit = lambda model, loss: lambda *data: norms_of(per_sample_grads(model, loss)(*data))
    assert_close(by_temperature(per_sample_grad_norms), by_temperature(explicit))


def by_input_rows(function, batch, targets):
    rows = []
    for i in range(N):
        rows.append(grad(lambda batch: function(batch, targets)[i])(batch))
    return torch.stack(rows)


def test_differentiated_by_parameters_through_functional_call():
    model, batch, targets = made("mlp")
    parameters = {name: each.detach() for name, each in model.named_parameters()}

    class Penalty(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.model, self.function = model, function

        def forward(self):
            return self.function(self.model, F.cross_entropy)(batch, targets).sum()

    given = {f"model.{name}": each for name, each in parameters.items()}
    by = lambda function: grad(lambda p: functional_call(Penalty(function), p))(given)
    explicit = lambda model, loss: lambda *data: norms_of(per_sample_grads(model, loss)(*data))
    got, expected = by(per_sample_grad_norms), by(explicit)
    assert_close(got, expected)
    assert any(each.abs().sum() > 0 for each in got.values())


def test_a_gradient_of_zero_is_not_clipped():
    model = nn.Linear(2, 1).double()
    loss = lambda output, target: (output * target).sum()
    got = clipped_grad_sum(model, loss, 1.0)(rand(3, 2), torch.zeros(3, 1).double())
    assert_close(got, {name: torch.zeros_like(each) for name, each in got.items()})


def test_errors():
    model, batch, targets = made("mlp")
    with pytest.raises(ValueError, match="clipped_grad_sum: max_norm must be positive, but got 0"):
        clipped_grad_sum(model, F.cross_entropy, 0)
    with pytest.raises(ValueError, match="per_sample_grads: chunk_size should be None or greater"):
        per_sample_grads(model, F.cross_entropy, chunk_size=0)
    clipped = lambda model, loss: clipped_grad_sum(model, loss, 1.0)
    for function in (per_sample_grads, per_sample_grad_norms, clipped):
        with pytest.raises(TypeError, match="must be a torch.nn.Module, but got a function"):
            function(F.cross_entropy, model)
        with pytest.raises(
            ValueError, match=r"\w+: the batch has 5 samples and the targets have 2"
        ):
            function(model, F.cross_entropy)(batch, targets[:2])
        with pytest.raises(RuntimeError, match=r"\w+: Expected loss_fn .* of shape \(1,\)"):
            function(model, lambda *args: F.cross_entropy(*args, reduction="none"))(batch, targets)
    training = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    for function in (per_sample_grads, per_sample_grad_norms):
        with pytest.raises((RuntimeError, ValueError)):
            function(training, F.cross_entropy)(batch, targets)


@pytest.mark.parametrize("layers_with_formulas", ["all"], indirect=True)
def test_an_input_that_is_overwritten_later():
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x):
            hidden = x * 2
            out = self.inner(hidden)
            return out + hidden.relu_()

    with pytest.raises(RuntimeError, match="the input of linear was modified in place"):
        per_sample_grad_norms(Overwriting().double(), F.mse_loss)(rand(N, 3), rand(N, 3))


def test_a_function_that_is_used_again():
    """Once it is known that no layer has a formula, none is looked for."""
    model, batch, targets = made("mlp")
    norms = per_sample_grad_norms(model, F.cross_entropy)
    clipped = clipped_grad_sum(model, F.cross_entropy, 0.1)
    expected = norms_of(naive(model, F.cross_entropy, batch, targets))
    first = clipped(batch, targets)
    for _ in range(2):
        assert_close(norms(batch, targets), expected)
        assert_close(norms(batch[:3], targets[:3]), expected[:3])
        assert_close(clipped(batch, targets), first)
    model[0].bias.requires_grad_(False)
    fewer = naive(model, F.cross_entropy, batch, targets)
    assert_close(norms(batch, targets), norms_of(fewer))
    assert clipped(batch, targets).keys() == fewer.keys()
