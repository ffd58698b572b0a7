"""MAML: the gradient, by the starting weights, of the losses after a step of learning a task."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from benchmarks.models import mlp, mlp_in_jax
from benchmarks.peers import BY_HAND, LOOP, Peers, parameters_of
from benchmarks.timing import Contenders
from benchmarks.workload import workload

TASKS, SHOTS, STEP = 10, 10, 0.01
Weights = dict[str, Tensor]


def _sines(tasks: int, shots: int) -> tuple[Tensor, Tensor]:
    """Points of sines of random amplitude and phase, of shape (tasks, shots, 1) each."""
    amplitude, phase = torch.rand(tasks, 1, 1) * 4.9 + 0.1, torch.rand(tasks, 1, 1) * torch.pi
    x = torch.rand(tasks, shots, 1) * 10 - 5
    return x, amplitude * (x + phase).sin()


@workload("MAML on sines, MLP 1-40-40-1, 10 tasks", faster_than_torch_func=3)
def maml(peers: Peers) -> Contenders:
    """By hand: all tasks at once, each with its copy of the weights, in batched products."""
    model = mlp(1, 40, 40, 1)
    weights = parameters_of(model)
    x, y = _sines(TASKS, 2 * SHOTS)
    tasks = x[:, :SHOTS], y[:, :SHOTS], x[:, SHOTS:], y[:, SHOTS:]

    def make(library: ModuleType) -> Callable[[], Any]:
        def loss(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
            return mse_loss(library.functional_call(model, weights, (x,)), y)

        def loss_after_step(weights: Weights, x: Tensor, y: Tensor, x2: Tensor, y2: Tensor) -> Any:
            slopes = library.grad(loss)(weights, x, y)
            return loss({name: w - STEP * slopes[name] for name, w in weights.items()}, x2, y2)

        def mean_loss(weights: Weights) -> Tensor:
            return library.vmap(loss_after_step, (None, 0, 0, 0, 0))(weights, *tasks).mean()

        gradient = library.grad(mean_loss)
        return lambda: gradient(weights)

    def leaves() -> Weights:
        return {name: weight.detach().requires_grad_() for name, weight in weights.items()}

    def step(weights: Weights, loss: Tensor) -> Weights:
        slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        return {name: w - STEP * slope for (name, w), slope in zip(weights.items(), slopes)}

    def gradient_by(weights: Weights, loss: Tensor) -> Weights:
        return dict(zip(weights, torch.autograd.grad(loss, list(weights.values()))))

    def batched_mlp(weights: Weights, x: Tensor) -> Tensor:
        for layer in (0, 2, 4):
            if layer:
                x = x.tanh()
            bias = weights[f"{layer}.bias"].unsqueeze(-2)
            x = torch.baddbmm(bias, x, weights[f"{layer}.weight"].mT)
        return x

    def by_hand() -> Weights:
        start, (x, y, x2, y2) = leaves(), tasks
        copies = {name: weight.expand(TASKS, *weight.shape) for name, weight in start.items()}
        # The tasks' mean losses are summed, so that each copy gets its own task's gradient.
        stepped = step(copies, mse_loss(batched_mlp(copies, x), y) * TASKS)
        return gradient_by(start, mse_loss(batched_mlp(stepped, x2), y2))

    def loop() -> Weights:
        start, losses = leaves(), []
        for x, y, x2, y2 in zip(*tasks):
            stepped = step(start, mse_loss(torch.func.functional_call(model, start, (x,)), y))
            losses.append(mse_loss(torch.func.functional_call(model, stepped, (x2,)), y2))
        return gradient_by(start, torch.stack(losses).mean())

    return {
        **peers.both(make),
        BY_HAND: by_hand,
        LOOP: loop,
        **peers.jax(_in_jax, weights, *tasks),
    }


def _in_jax(jax: ModuleType) -> Callable[..., Any]:
    def loss(weights: Any, x: Any, y: Any) -> Any:
        return ((mlp_in_jax(jax, weights, x) - y) ** 2).mean()

    def loss_after_step(weights: Any, x: Any, y: Any, x2: Any, y2: Any) -> Any:
        slopes = jax.grad(loss)(weights, x, y)
        return loss({name: w - STEP * slopes[name] for name, w in weights.items()}, x2, y2)

    def mean_loss(weights: Any, *tasks: Any) -> Any:
        return jax.vmap(loss_after_step, (None, 0, 0, 0, 0))(weights, *tasks).mean()

    return jax.grad(mean_loss)


WORKLOADS = [maml]
