"""What is measured. Each workload computes one thing in several ways.

The sizes are small on purpose: there the time is what a transform costs on top of the arithmetic.
On large tensors arithmetic dominates, and all ways but the loops over samples come out alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import functorch_ext

OURS = "functorch_ext"
PEER = "torch.func"
BY_HAND = "by hand"

SAMPLES = 16
CLASSES = 10


@dataclass(frozen=True)
class Workload:
    """One thing to compute.

    Attributes:
        name: what it is, in a few words.
        contenders: the ways to compute it: functions without arguments.
    """

    name: str
    contenders: dict[str, Callable[[], Any]]


def all_workloads() -> list[Workload]:
    """Every workload, with its data made anew from a fixed seed."""
    torch.manual_seed(0)
    return [
        pointwise_chain(),
        empty_call(),
        gradient_of_chain(),
        mapped_gradient_of_chain(),
        *jacobians(),
        per_sample_gradients("an MLP", _mlp(64, 128, CLASSES), torch.randn(SAMPLES, 64)),
        per_sample_gradients("a ConvNet", _convnet(), torch.randn(SAMPLES, 1, 8, 8)),
        ensemble(),
    ]


def _both(make: Callable[[ModuleType], Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    """The same computation with both libraries; ``make`` gets the one to use."""
    return {OURS: make(functorch_ext), PEER: make(torch.func)}


def _chain(x: Tensor) -> Tensor:
    for _ in range(10):
        x = x.sin()
        x = x * 0.5
        x = x + 1.0
        x = x.tanh()
    return x


def _chain_sum(x: Tensor) -> Tensor:
    return _chain(x).sum()


def pointwise_chain() -> Workload:
    """What ``vmap`` adds to each operator. By hand: the function takes batches as it is."""
    x = torch.randn(4, 8)

    def make(library: ModuleType) -> Callable[[], Any]:
        mapped = library.vmap(_chain)
        return lambda: mapped(x)

    return Workload(
        "vmap of 40 pointwise operators, 4x8", {BY_HAND: lambda: _chain(x), **_both(make)}
    )


def empty_call() -> Workload:
    """What a call of a mapped function costs that computes nothing."""
    x = torch.randn(4, 8)

    def make(library: ModuleType) -> Callable[[], Any]:
        mapped = library.vmap(lambda sample: sample)
        return lambda: mapped(x)

    return Workload("vmap of the identity, 4x8", _both(make))


def _gradient_by_autograd(x: Tensor) -> Callable[[], Tensor]:
    leaf = x.clone().requires_grad_()
    return lambda: torch.autograd.grad(_chain_sum(leaf), leaf)[0]


def gradient_of_chain() -> Workload:
    """What ``grad`` adds to autograd."""
    x = torch.randn(4, 8)

    def make(library: ModuleType) -> Callable[[], Any]:
        gradient = library.grad(_chain_sum)
        return lambda: gradient(x)

    return Workload(
        "grad of the 40 operators, summed", {BY_HAND: _gradient_by_autograd(x), **_both(make)}
    )


def mapped_gradient_of_chain() -> Workload:
    """Per-sample gradients. By hand: of the sum over samples, as they don't mix here."""
    x = torch.randn(4, 8)

    def make(library: ModuleType) -> Callable[[], Any]:
        gradient = library.vmap(library.grad(_chain_sum))
        return lambda: gradient(x)

    return Workload(
        "vmap(grad) of the 40 operators, summed",
        {BY_HAND: _gradient_by_autograd(x), **_both(make)},
    )


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


def _convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(-3),
        nn.Linear(16 * 4 * 4, CLASSES),
    )


def jacobians() -> list[Workload]:
    """Jacobians and the Hessian of an MLP by its input."""
    model = _mlp(16, 32, 16).requires_grad_(False)
    x = torch.randn(16)

    def make(transform: str, func: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
        def with_library(library: ModuleType) -> Callable[[], Any]:
            derivative = getattr(library, transform)(func)
            return lambda: derivative(x)

        return with_library

    functions = {
        "jacrev": model,
        "jacfwd": model,
        "hessian": lambda x: model(x).sum(),
    }
    return [
        Workload(f"{transform} of an MLP, 16 to {sizes}", _both(make(transform, func)))
        for (transform, func), sizes in zip(functions.items(), ("16", "16", "1"))
    ]


def per_sample_gradients(name: str, model: nn.Module, x: Tensor) -> Workload:
    """The gradient of each sample's loss by all parameters. By hand: a loop over samples."""
    labels = torch.randint(CLASSES, (SAMPLES,))
    parameters = {key: value.detach() for key, value in model.named_parameters()}

    def make(library: ModuleType) -> Callable[[], Any]:
        def loss(parameters: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
            return cross_entropy(library.functional_call(model, parameters, (sample,)), label)

        gradients = library.vmap(library.grad(loss), in_dims=(None, 0, 0))
        return lambda: gradients(parameters, x, labels)

    def loop() -> dict[str, Tensor]:
        leaves = dict(model.named_parameters())
        rows = [
            torch.autograd.grad(cross_entropy(model(sample), label), list(leaves.values()))
            for sample, label in zip(x, labels)
        ]
        return {key: torch.stack(column) for key, column in zip(leaves, zip(*rows))}

    return Workload(f"gradients of {SAMPLES} samples, {name}", {BY_HAND: loop, **_both(make)})


def ensemble() -> Workload:
    """Several models on one batch. By hand: a loop over models."""
    models = [_mlp(64, 128, CLASSES).requires_grad_(False) for _ in range(8)]
    x = torch.randn(SAMPLES, 64)

    def make(library: ModuleType) -> Callable[[], Any]:
        def call(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            return library.functional_call(models[0], parameters, (x,))

        parameters, _ = library.stack_module_state(models)
        mapped = library.vmap(call, in_dims=(0, None))
        return lambda: mapped(parameters, x)

    return Workload(
        f"an ensemble of {len(models)} MLPs",
        {BY_HAND: lambda: torch.stack([model(x) for model in models]), **_both(make)},
    )
