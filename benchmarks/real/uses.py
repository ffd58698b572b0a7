"""What people do with a network, each with the ways to do it.

A use takes a :class:`~benchmarks.real.task.Task` and the peers, and returns functions without
arguments by the names of :mod:`benchmarks.peers`. ``LIMIT`` is what has to be computed at least.
"""

import copy
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import functorch_ext
from benchmarks.peers import BY_HAND, LOOP, OURS_JIT, Peers, parameters_of
from benchmarks.real import in_jax
from benchmarks.real.task import Task
from benchmarks.timing import Contenders

LIMIT = "batch gradient"
MEMBERS = 8
Weights = dict[str, Tensor]


def _loss_of_sample(library: ModuleType, task: Task) -> Callable[..., Tensor]:
    """The loss of one sample, which the model sees as a batch of one."""

    def loss(weights: Weights, goal: Tensor, *sample: Tensor) -> Tensor:
        batch = tuple(x.unsqueeze(0) for x in sample)
        output = library.functional_call(task.model, weights, batch)
        return task.loss(output, goal.unsqueeze(0))

    return loss


def _batch_gradient(task: Task) -> list[Tensor]:
    """One backward pass for the sum of the losses, by plain autograd."""
    leaves = list(task.model.parameters())
    return list(torch.autograd.grad(task.loss(task.model(*task.inputs), task.goal), leaves))


def _gradients_by_loop(task: Task) -> Weights:
    names = [name for name, _ in task.model.named_parameters()]
    rows = [
        _batch_gradient(Task(task.model, tuple(x[i : i + 1] for x in task.inputs), goal, task.loss))
        for i, goal in enumerate(task.goal.split(1))
    ]
    return {name: torch.stack(column) for name, column in zip(names, zip(*rows))}


def _compiled_gradients(task: Task, peers: Peers, ours: Callable[..., Weights]) -> Contenders:
    """Of each sample, by our jit and JAX's; nothing for a network that isn't written for JAX."""
    if (loss := in_jax.loss_of_sample(task)) is None:
        return {}
    arguments = parameters_of(task.model), task.goal, *task.inputs
    compiled = functorch_ext.jit(ours)
    axes = (None, 0, *(0 for _ in task.inputs))

    def make(jax: ModuleType) -> Callable[..., Any]:
        return jax.vmap(jax.grad(partial(loss, jax)), axes)

    return {OURS_JIT: lambda: compiled(*arguments), **peers.jax(make, *arguments)}


def per_sample_gradients(task: Task, peers: Peers) -> Contenders:
    """Of each sample's loss by all parameters. At least: one gradient of the whole batch."""
    weights = parameters_of(task.model)
    axes = (None, 0, *(0 for _ in task.inputs))

    def transformed(library: ModuleType) -> Callable[..., Weights]:
        return library.vmap(library.grad(_loss_of_sample(library, task)), axes)

    def make(library: ModuleType) -> Callable[[], Weights]:
        gradients = transformed(library)
        return lambda: gradients(weights, task.goal, *task.inputs)

    def in_opacus(opacus: ModuleType) -> Callable[[], Weights]:
        model = opacus.GradSampleModule(copy.deepcopy(task.model), loss_reduction="sum")
        parameters = dict(model._module.named_parameters())

        def gradients() -> Weights:
            for parameter in parameters.values():
                parameter.grad = parameter.grad_sample = None
            task.loss(model(*task.inputs), task.goal).backward()
            return {name: leaf.grad_sample for name, leaf in parameters.items()}

        return gradients

    return {
        **peers.both(make),
        LOOP: lambda: _gradients_by_loop(task),
        **peers.opacus(in_opacus),
        **_compiled_gradients(task, peers, transformed(functorch_ext)),
        LIMIT: lambda: _batch_gradient(task),
    }


def per_sample_norms(task: Task, peers: Peers) -> Contenders:
    """The norm of each sample's gradient, as clipping needs it."""
    weights = parameters_of(task.model)
    axes = (None, 0, *(0 for _ in task.inputs))

    def make(library: ModuleType) -> Callable[[], Tensor]:
        gradient = library.grad(_loss_of_sample(library, task))

        def norm(*args: Any) -> Tensor:
            return sum(g.square().sum() for g in gradient(*args).values()).sqrt()

        norms = library.vmap(norm, axes)
        return lambda: norms(weights, task.goal, *task.inputs)

    def loop() -> Tensor:
        gradients = _gradients_by_loop(task)
        return sum(g.flatten(1).square().sum(1) for g in gradients.values()).sqrt()

    return {**peers.both(make), LOOP: loop, LIMIT: lambda: _batch_gradient(task)}


def ensemble(task: Task, peers: Peers) -> Contenders:
    """The gradients of eight networks by their own parameters, on the same batch."""
    models = [copy.deepcopy(task.model) for _ in range(MEMBERS)]
    for model in models:
        for parameter in model.parameters():
            parameter.data.mul_(1 + 0.1 * torch.randn_like(parameter))
    stacked = {
        name: torch.stack([dict(model.named_parameters())[name].detach() for model in models])
        for name, _ in task.model.named_parameters()
    }

    def make(library: ModuleType) -> Callable[[], Weights]:
        def loss(weights: Weights) -> Tensor:
            output = library.functional_call(task.model, weights, task.inputs)
            return task.loss(output, task.goal)

        gradients = library.vmap(library.grad(loss))
        return lambda: gradients(stacked)

    def loop() -> Weights:
        rows = [_batch_gradient(Task(m, task.inputs, task.goal, task.loss)) for m in models]
        return dict(zip(stacked, map(torch.stack, zip(*rows))))

    return {**peers.both(make), LOOP: loop}


def hessian_vector_product(task: Task, peers: Peers) -> Contenders:
    """Of the batch's loss by all parameters. By hand: two backward passes."""
    weights = parameters_of(task.model)
    direction = {name: torch.randn_like(weight) for name, weight in weights.items()}

    def make(library: ModuleType) -> Callable[[], Weights]:
        def loss(weights: Weights) -> Tensor:
            output = library.functional_call(task.model, weights, task.inputs)
            return task.loss(output, task.goal)

        gradient = library.grad(loss)
        return lambda: library.jvp(gradient, (weights,), (direction,))[1]

    def by_hand() -> Weights:
        leaves = list(task.model.parameters())
        loss = task.loss(task.model(*task.inputs), task.goal)
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        products = torch.autograd.grad(gradients, leaves, list(direction.values()))
        return dict(zip(weights, products))

    return {**peers.both(make), BY_HAND: by_hand}


def jacobian_of_head(task: Task, peers: Peers) -> Contenders:
    """Of four samples' mean outputs by the last layer's parameters. By hand: one pass for each."""
    task = task.batch(4)
    fixed = parameters_of(task.model)
    head = {name: w for name, w in fixed.items() if name.startswith(task.head + ".")}

    def outputs(output: Tensor) -> Tensor:
        return output.flatten(2).mean(-1) if output.dim() > 2 else output

    def make(library: ModuleType) -> Callable[[], Weights]:
        def call(head: Weights) -> Tensor:
            return outputs(library.functional_call(task.model, {**fixed, **head}, task.inputs)).sum(
                0
            )

        jacobian = library.jacrev(call)
        return lambda: jacobian(head)

    def by_hand() -> Weights:
        leaves = [task.model.get_parameter(name) for name in head]
        entries = outputs(task.model(*task.inputs)).sum(0)
        rows = [torch.autograd.grad(entry, leaves, retain_graph=True) for entry in entries]
        return dict(zip(head, map(torch.stack, zip(*rows))))

    return {**peers.both(make), BY_HAND: by_hand}


def meta_learning(task: Task, peers: Peers) -> Contenders:
    """MAML: by the weights before a step, of the losses after it. Tasks: quarters of the batch."""
    weights = parameters_of(task.model)
    size = max(1, len(task.goal) // 4)
    inputs = tuple(x[: 4 * size].unflatten(0, (-1, size)) for x in task.inputs)
    goal = task.goal[: 4 * size].unflatten(0, (-1, size))
    axes = (None, 0, *(0 for _ in inputs))

    def make(library: ModuleType) -> Callable[[], Weights]:
        def loss(weights: Weights, goal: Tensor, *inputs: Tensor) -> Tensor:
            return task.loss(library.functional_call(task.model, weights, inputs), goal)

        def after_step(weights: Weights, goal: Tensor, *inputs: Tensor) -> Tensor:
            slopes = library.grad(loss)(weights, goal, *inputs)
            stepped = {name: w - 1e-3 * slopes[name] for name, w in weights.items()}
            return loss(stepped, goal, *inputs)

        def total(weights: Weights) -> Tensor:
            return library.vmap(after_step, axes)(weights, goal, *inputs).sum()

        gradient = library.grad(total)
        return lambda: gradient(weights)

    def loop() -> Weights:
        leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
        total = torch.zeros((), device=goal.device)
        for i, answer in enumerate(goal):
            batch = tuple(x[i] for x in inputs)

            def loss(values: Weights, batch: Any = batch, answer: Tensor = answer) -> Tensor:
                return task.loss(torch.func.functional_call(task.model, values, batch), answer)

            slopes = torch.autograd.grad(loss(leaves), list(leaves.values()), create_graph=True)
            total = total + loss({k: w - 1e-3 * s for (k, w), s in zip(leaves.items(), slopes)})
        return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values()))))

    return {**peers.both(make), LOOP: loop}


USES = {
    "per-sample gradients": per_sample_gradients,
    "per-sample norms": per_sample_norms,
    "ensemble of 8": ensemble,
    "hvp": hessian_vector_product,
    "jacrev by the head": jacobian_of_head,
    "MAML, 4 tasks": meta_learning,
}
