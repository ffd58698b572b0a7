"""What is built on the transforms, beside what one would write without it.

Each row: the plain form's time and peak memory, ours, and how far apart their results are in
float64, relative to the greatest number.

python -m benchmarks.beyond
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from benchmarks.memory import MIB, peak_of
from benchmarks.report import table
from benchmarks.timing import measure
from functorch_ext import (
    clipped_grad_sum,
    functional_call,
    ggnvp,
    grad,
    hessian,
    hvp,
    jacfwd,
    laplacian,
    per_sample_grad_norms,
    per_sample_grads,
    sparse_hessian,
    sparse_jacobian,
    vmap,
)

Pair = tuple[Callable[[], Any], Callable[[], Any]]  # the plain form, and ours


def mlp(*sizes: int) -> nn.Sequential:
    layers = [(nn.Linear(a, b), nn.Tanh()) for a, b in zip(sizes, sizes[1:])]
    return nn.Sequential(*[layer for pair in layers for layer in pair][:-1])


def product_with_hessian(batch: int, *sizes: int) -> Pair:
    model, inputs, targets = (
        mlp(*sizes),
        torch.randn(batch, sizes[0]),
        torch.randn(batch, sizes[-1]),
    )
    parameters = {name: each.detach() for name, each in model.named_parameters()}
    vector = {name: torch.randn_like(each) for name, each in parameters.items()}
    loss = lambda p: F.mse_loss(functional_call(model, p, (inputs,)), targets)

    def double_backward() -> Any:
        leaves = [each.detach().requires_grad_() for each in parameters.values()]
        value = loss(dict(zip(parameters, leaves)))
        gradients = torch.autograd.grad(value, leaves, create_graph=True)
        products = torch.autograd.grad(gradients, leaves, list(vector.values()))
        return dict(zip(parameters, products))

    return double_backward, lambda: hvp(loss)(parameters, vector)


def many_products() -> Pair:
    model, inputs = mlp(16, 32, 32, 1), torch.randn(64, 16)
    parameters = {name: each.detach() for name, each in model.named_parameters()}
    many = {name: torch.randn(32, *each.shape) for name, each in parameters.items()}
    loss = lambda p: functional_call(model, p, (inputs,)).square().mean()
    one = lambda i: hvp(loss)(parameters, {name: each[i] for name, each in many.items()})

    def loop() -> Any:
        rows = [one(i) for i in range(32)]
        return {name: torch.stack([row[name] for row in rows]) for name in parameters}

    return loop, lambda: vmap(hvp(loss).at(parameters))(many)


def gauss_newton() -> Pair:
    model, inputs = mlp(8, 16, 4), torch.randn(32, 8)
    labels = torch.randint(4, (32,))
    parameters = {name: each.detach() for name, each in model.named_parameters()}
    vector = {name: torch.randn_like(each) for name, each in parameters.items()}
    call = lambda p: functional_call(model, p, (inputs,))
    loss = lambda output: F.cross_entropy(output, labels)

    def explicit() -> Any:
        leaves = [each.detach().requires_grad_() for each in parameters.values()]
        output = call(dict(zip(parameters, leaves)))
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(z, leaves, retain_graph=True)])
            for z in output.flatten()
        ]
        jacobian, size = torch.stack(rows), output.numel()
        curvature = torch.autograd.functional.hessian(loss, output.detach()).reshape(size, size)
        flat = torch.cat([each.flatten() for each in vector.values()])
        product = jacobian.T @ (curvature @ (jacobian @ flat))
        parts = product.split([each.numel() for each in leaves])
        return {n: part.reshape(each.shape) for (n, each), part in zip(parameters.items(), parts)}

    return explicit, lambda: ggnvp(call, loss)(parameters, vector)


def sum_of_second_derivatives(inputs: int) -> Pair:
    model, x = mlp(inputs, 64, 64, 64, 64, 1), torch.randn(256, inputs)
    model.requires_grad_(False)
    value = lambda x: model(x)[0]
    return (
        lambda: vmap(lambda x: hessian(value)(x).trace())(x),
        lambda: vmap(laplacian(value))(x),
    )


def with_bands(size: int) -> Pair:
    x = torch.randn(size)
    function = lambda x: x * (x.roll(1) - 2 * x + x.roll(-1)) + x.sin()
    matrix = sparse_jacobian(function)
    return lambda: jacfwd(function)(x), lambda: matrix(x)


def of_a_chain(size: int) -> Pair:
    x = torch.randn(size)
    energy = lambda x: ((x[1:] - x[:-1]) ** 4).sum()
    matrix = sparse_hessian(energy)
    return lambda: hessian(energy)(x), lambda: matrix(x)


def of_samples(kind: str, model: nn.Module, batch: Tensor, classes: int) -> Pair:
    labels = torch.randint(classes, (len(batch),))
    parameters = list(model.parameters())
    names = [name for name, _ in model.named_parameters()]

    def loop() -> Any:
        rows = []
        for i in range(len(batch)):
            loss = F.cross_entropy(model(batch[i : i + 1]), labels[i : i + 1])
            rows.append(torch.autograd.grad(loss, parameters))
        return {name: torch.stack(column) for name, column in zip(names, zip(*rows))}

    def norms(gradients: dict[str, Tensor]) -> Tensor:
        parts = [each.flatten(1).square().sum(1) for each in gradients.values()]
        return torch.stack(parts).sum(0).sqrt()

    constants = {name: each.detach() for name, each in model.named_parameters()}

    def one(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, p, (x[None],)), y[None])

    mapped = lambda: vmap(grad(one), (None, 0, 0))(constants, batch, labels)

    def clipped() -> Any:
        gradients = mapped()
        scales = (0.5 / norms(gradients)).clamp(max=1.0)
        return {name: torch.tensordot(scales, each, 1) for name, each in gradients.items()}

    if kind == "gradients":
        return loop, lambda: per_sample_grads(model, F.cross_entropy)(batch, labels)
    if kind == "norms":
        return lambda: norms(mapped()), lambda: per_sample_grad_norms(model, F.cross_entropy)(
            batch, labels
        )
    return clipped, lambda: clipped_grad_sum(model, F.cross_entropy, 0.5)(batch, labels)


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 16, 10),
    )  # fmt: skip


CASES: dict[str, Callable[[], Pair]] = {
    "`hvp`, MLP 4-8-1, batch 8; double backward": lambda: product_with_hessian(8, 4, 8, 1),
    "`hvp`, MLP 32-64-64-10, batch 32; double backward": lambda: product_with_hessian(
        32, 32, 64, 64, 10
    ),
    "`hvp`, MLP 256-512-512-10, batch 128; double backward": lambda: product_with_hessian(
        128, 256, 512, 512, 10
    ),
    "`vmap(hvp(f).at(x))`, 32 vectors; a loop of `hvp`": many_products,
    "`ggnvp`, MLP 8-16-4, batch 32; the matrices": gauss_newton,
    "`laplacian`, 4x64 tanh, d = 12, batch 256; `vmap(trace(hessian))`": lambda: (
        sum_of_second_derivatives(12)
    ),
    "`laplacian`, 4x64 tanh, d = 30, batch 256; `vmap(trace(hessian))`": lambda: (
        sum_of_second_derivatives(30)
    ),
    "`sparse_jacobian`, 3 bands, n = 2000; `jacfwd`": lambda: with_bands(2000),
    "`sparse_hessian`, 3 bands, n = 2000; `hessian`": lambda: of_a_chain(2000),
    "`per_sample_grads`, ConvNet, 32 samples; a loop": lambda: of_samples(
        "gradients", convnet(), torch.randn(32, 3, 16, 16), 10
    ),
    "`per_sample_grad_norms`, MLP 256-512-512-10, 64 samples; `vmap(grad)`": lambda: of_samples(
        "norms", mlp(256, 512, 512, 10), torch.randn(64, 256), 10
    ),
    "`per_sample_grad_norms`, ConvNet, 32 samples; `vmap(grad)`": lambda: of_samples(
        "norms", convnet(), torch.randn(32, 3, 16, 16), 10
    ),
    "`clipped_grad_sum`, MLP 256-512-512-10, 64 samples; `vmap(grad)`": lambda: of_samples(
        "clipped", mlp(256, 512, 512, 10), torch.randn(64, 256), 10
    ),
    "`clipped_grad_sum`, ConvNet, 32 samples; `vmap(grad)`": lambda: of_samples(
        "clipped", convnet(), torch.randn(32, 3, 16, 16), 10
    ),
}


def distance(make: Callable[[], Pair]) -> float:
    """How far apart the results are in float64, relative to the greatest number."""
    torch.set_default_dtype(torch.float64)
    try:
        plain, ours = ([each.to_dense() for each in pytree.tree_leaves(run())] for run in make())
    finally:
        torch.set_default_dtype(torch.float32)
    greatest = max(each.abs().max() for each in plain)
    return max(float((a - b).abs().max() / greatest) for a, b in zip(plain, ours, strict=True))


def row(name: str, make: Callable[[], Pair]) -> list[str]:
    torch.manual_seed(0)
    error = distance(make)
    plain, ours = make()
    timings = measure({"plain": plain, "ours": ours}, "plain", rounds=11)
    memory = [f"{peak_of(run) / MIB:.2f}" for run in (plain, ours)]
    times = [f"{timings[side].seconds * 1e3:.2f}" for side in ("plain", "ours")]
    return [name, *times, f"{timings['ours'].ratio:.2f}", *memory, f"{error:.0e}"]


HEAD = ["Function; plain form", "plain, ms", "ours, ms", "ours / plain"]
HEAD += ["plain, MiB", "ours, MiB", "error"]

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table(HEAD, [row(name, make) for name, make in CASES.items()]))
