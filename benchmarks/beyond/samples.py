"""Gradients of each sample: themselves, their norms, and their clipped sum."""

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.beyond.case import OURS, PLAIN, Case, Runs, mlp
from benchmarks.peers import TORCH_FUNC, Peers, parameters_of
from functorch_ext import (
    clipped_grad_sum,
    functional_call,
    grad,
    per_sample_grad_norms,
    per_sample_grads,
    vmap,
)

MAX_NORM = 0.5
Data = tuple[nn.Module, Tensor]


def convnet() -> Data:
    """Few weights and many positions in the first layers."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 16, 10),
    )  # fmt: skip
    return model, torch.randn(32, 3, 16, 16)


def wide() -> Data:
    """More weights than activations."""
    return mlp(256, 512, 512, 10), torch.randn(64, 256)


class Tokens(nn.Module):
    """An embedding, a layer of a transformer, and the mean of its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, 64)
        self.layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
        self.last = nn.Linear(64, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        """Of (samples, tokens)."""
        return self.last(self.layer(self.embedding(tokens)).mean(1))


def transformer() -> Data:
    return Tokens(), torch.randint(1000, (16, 32))


class Recurrent(nn.Module):
    """An LSTM, and a linear layer of its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(32, 64, batch_first=True)
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Of (samples, steps, features)."""
        return self.last(self.cells(x)[0][:, -1])


def lstm() -> Data:
    return Recurrent(), torch.randn(32, 16, 32)


def _known_to_opacus(opacus: ModuleType, model: nn.Module) -> nn.Module:
    """A copy with layers of Opacus in place of those that it doesn't know."""
    copied = copy.deepcopy(model)
    if isinstance(copied, Recurrent):
        theirs = opacus.layers.DPLSTM(32, 64, batch_first=True)
        theirs.load_state_dict(copied.cells.state_dict())
        copied.cells = theirs
    if isinstance(copied, Tokens):
        copied = opacus.validators.ModuleValidator.fix(copied)
    return copied


def _with_opacus(kind: str, model: nn.Module, batch: Tensor, labels: Tensor) -> Any:
    def make(opacus: ModuleType) -> Callable[[], Any]:
        known = _known_to_opacus(opacus, model)
        if kind == "gradients":
            hooked = opacus.GradSampleModule(known, loss_reduction="sum")
        else:
            from opacus.grad_sample import GradSampleModuleFastGradientClipping as FastClipping

            hooked = FastClipping(known, loss_reduction="sum", max_grad_norm=MAX_NORM)
        leaves = dict(known.named_parameters())

        def run() -> Any:
            for leaf in leaves.values():
                leaf.grad = leaf.grad_sample = None
            losses = F.cross_entropy(hooked(batch), labels, reduction="none")
            losses.sum().backward(retain_graph=kind == "clipped")
            if kind == "gradients":
                return {name: leaf.grad_sample for name, leaf in leaves.items()}
            norms = hooked.get_norm_sample()
            if kind == "norms":
                return norms
            scales = (MAX_NORM / norms).clamp(max=1.0)
            for leaf in leaves.values():
                leaf.grad = None
            hooked.disable_hooks()
            (losses * scales).sum().backward()
            hooked.enable_hooks()
            return {name: leaf.grad for name, leaf in leaves.items()}

        return run

    return make


def of_samples(peers: Peers, kind: str, data: Callable[[], Data]) -> Runs:
    model, batch = data()
    labels = torch.randint(10, (len(batch),))
    constants = parameters_of(model)

    def loop() -> Any:
        rows = []
        for i in range(len(batch)):
            loss = F.cross_entropy(model(batch[i : i + 1]), labels[i : i + 1])
            rows.append(torch.autograd.grad(loss, list(model.parameters())))
        return {name: torch.stack(column) for name, column in zip(constants, zip(*rows))}

    def gradients(library: Any) -> Any:
        def loss(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(library.functional_call(model, p, (x[None],)), y[None])

        return library.vmap(library.grad(loss), (None, 0, 0))(constants, batch, labels)

    def norms(gradients: dict[str, Tensor]) -> Tensor:
        parts = [each.flatten(1).square().sum(1) for each in gradients.values()]
        return torch.stack(parts).sum(0).sqrt()

    def clipped(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        scales = (MAX_NORM / norms(gradients)).clamp(max=1.0)
        return {name: torch.tensordot(scales, each, 1) for name, each in gradients.items()}

    of_gradients = {"gradients": lambda x: x, "norms": norms, "clipped": clipped}[kind]
    ours = {
        "gradients": lambda: per_sample_grads(model, F.cross_entropy),
        "norms": lambda: per_sample_grad_norms(model, F.cross_entropy),
        "clipped": lambda: clipped_grad_sum(model, F.cross_entropy, MAX_NORM),
    }[kind]()
    return {
        PLAIN: loop if kind == "gradients" else lambda: of_gradients(gradients(_OURS)),
        OURS: lambda: ours(batch, labels),
        TORCH_FUNC: lambda: of_gradients(gradients(torch.func)),
        **peers.opacus(_with_opacus(kind, model, batch, labels)),
    }


class _OURS:  # noqa: N801  (as a module)
    functional_call = staticmethod(functional_call)
    grad = staticmethod(grad)
    vmap = staticmethod(vmap)


_DATA: dict[str, Callable[[], Data]] = {
    "ConvNet, 32 samples": convnet,
    "MLP 256-512-512-10, 64 samples": wide,
    "transformer layer, 16 samples of 32 tokens": transformer,
    "LSTM, 32 samples of 16 steps": lstm,
}
_FUNCTIONS = {
    "gradients": ("per_sample_grads", "a loop"),
    "norms": ("per_sample_grad_norms", "`vmap(grad)`"),
    "clipped": ("clipped_grad_sum", "`vmap(grad)`"),
}

CASES = [
    Case(
        f"`{name}`, {what}",
        plain,
        lambda peers, kind=kind, data=data: of_samples(peers, kind, data),
    )
    for kind, (name, plain) in _FUNCTIONS.items()
    for what, data in _DATA.items()
]
