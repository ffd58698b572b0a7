"""Peak memory beside torch.func's and raw autograd's, each measured in a fresh process.

Looking at the process from outside would see what was freed but not returned; counting tensors
would miss what kernels allocate inside. So the allocator is asked: the profiler tells of every
allocation and release, and the peak of their sum is what a call needs at once, its result included.
The figures repeat exactly.

python -m benchmarks.memory [--output build/benchmarks/memory.json]
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile
from torch.nn.functional import cross_entropy

from benchmarks.part import run_part
from benchmarks.peers import LOOP, OURS, TORCH_FUNC, Peers, parameters_of
from benchmarks.report import table
from benchmarks.timing import Contenders
from benchmarks.workloads.jacobians import hessian_of_mlp, jacobian_of_mlp
from benchmarks.workloads.per_sample import of_convnet, of_transformer

MIB = 2**20
SIDES = (LOOP, OURS, TORCH_FUNC)


def _chain(peers: Peers) -> Contenders:
    """80 operators, each of which saves 8 MiB for its derivative."""
    x = torch.linspace(0, 1, 2 * MIB)

    def loss(x: Tensor) -> Tensor:
        for _ in range(40):
            x = (x * x).sin()
        return x.sum()

    def autograd() -> Tensor:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(loss(leaf), leaf)[0]

    return {**peers.both(lambda library: lambda: library.grad(loss)(x)), LOOP: autograd}


class Block(nn.Module):
    """Two convolutions with group norms, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(4, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](self.first(x)).relu()
        return (x + self.norms[1](self.second(y))).relu()


def _small_resnet() -> tuple[nn.Module, Tensor, Tensor]:
    """With images and their labels."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        *(Block(16) for _ in range(6)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    return model, torch.randn(16, 3, 32, 32), torch.arange(16) % 10


def _residual(peers: Peers) -> Contenders:
    """A small ResNet, by all of its parameters."""
    model, images, labels = _small_resnet()
    parameters = parameters_of(model)

    def make(library: ModuleType) -> Callable[[], Any]:
        def loss(parameters: dict[str, Tensor]) -> Tensor:
            return cross_entropy(library.functional_call(model, parameters, (images,)), labels)

        return lambda: library.grad(loss)(parameters)

    def autograd() -> Any:
        return torch.autograd.grad(cross_entropy(model(images), labels), list(model.parameters()))

    return {**peers.both(make), LOOP: autograd}


def _residual_products(peers: Peers) -> Contenders:
    """The Hessian's product with one vector. By plain autograd: two backward passes."""
    model, images, labels = _small_resnet()
    parameters = parameters_of(model)
    direction = {name: torch.randn_like(value) for name, value in parameters.items()}

    def make(library: ModuleType) -> Callable[[], Any]:
        def loss(parameters: dict[str, Tensor]) -> Tensor:
            return cross_entropy(library.functional_call(model, parameters, (images,)), labels)

        gradient = library.grad(loss)
        return lambda: library.jvp(gradient, (parameters,), (direction,))[1]

    def autograd() -> Any:
        leaves = list(model.parameters())
        loss = cross_entropy(model(images), labels)
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        return torch.autograd.grad(gradients, leaves, list(direction.values()))

    return {**peers.both(make), LOOP: autograd}


def _norms_of_chunks(peers: Peers) -> Contenders:
    """Of the gradients of 256 samples by 10 million parameters: 10 GiB of them in all.

    functorch_ext is told how much memory to take, torch.func how many samples at a time.
    """
    model = nn.Sequential(
        nn.Linear(1000, 3000), nn.ReLU(), nn.Linear(3000, 2000), nn.ReLU(), nn.Linear(2000, 500)
    )
    samples, labels = torch.randn(256, 1000), torch.arange(256)
    parameters = parameters_of(model)

    def make(library: ModuleType) -> Callable[[], Any]:
        chunk_size: Any = 8 if library is torch.func else "512 MiB"

        def loss(parameters: dict[str, Tensor], x: Tensor, label: Tensor) -> Tensor:
            return cross_entropy(library.functional_call(model, parameters, (x,)), label)

        def norm(x: Tensor, label: Tensor) -> Tensor:
            gradients = library.grad(loss)(parameters, x, label)
            return sum(gradient.square().sum() for gradient in gradients.values()).sqrt()

        return lambda: library.vmap(norm, chunk_size=chunk_size)(samples, labels)

    def autograd() -> Tensor:
        norms = []
        for x, label in zip(samples, labels):
            gradients = torch.autograd.grad(cross_entropy(model(x), label), model.parameters())
            norms.append(sum(gradient.square().sum() for gradient in gradients).sqrt())
        return torch.stack(norms)

    return {**peers.both(make), LOOP: autograd}


# Of one gradient, by one backward pass: raw autograd's peak is what it has to take.
GRADIENTS: dict[str, Callable[[Peers], Contenders]] = {
    "grad, 80 operators on 8 MiB": _chain,
    "grad, a small ResNet, 16 images of 32x32": _residual,
}
WORKLOADS: dict[str, Callable[[Peers], Contenders]] = {
    **GRADIENTS,
    "jacrev of an MLP, 512-1024-512": lambda peers: jacobian_of_mlp(peers, "jacrev", 512, 1024),
    "jacfwd of an MLP, 512-1024-512": lambda peers: jacobian_of_mlp(peers, "jacfwd", 512, 1024),
    "hessian of an MLP, 512-1024-1": lambda peers: hessian_of_mlp(peers, 512, 1024),
    "hvp, a small ResNet, 16 images of 32x32": _residual_products,
    "norms of 256 gradients, 10 million parameters, in chunks": _norms_of_chunks,
    of_convnet.name: of_convnet.build,
    of_transformer.name: of_transformer.build,
}


def peak_here(workload: str, side: str) -> int:
    """The most bytes that one call of a workload holds at once."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return peak_of(WORKLOADS[workload](Peers(SIDES))[side])


def peak_of(run: Callable[[], Any]) -> int:
    """The most bytes that one call holds at once, beyond what is there before it."""
    run()  # Allocates what is allocated once.
    with profile(profile_memory=True, use_kineto=True) as profiler:
        result = run()
    del result
    held = peak = 0
    for event in profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def peak(workload: str, side: str) -> int:
    """The same, in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", "--one", workload, side]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(workloads: Iterable[str] = WORKLOADS) -> dict[str, dict[str, int]]:
    """The peak in bytes by workload and side."""
    cases = [(workload, side) for workload in workloads for side in SIDES]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Of processes that don't disturb each other.
        peaks = pool.map(lambda case: peak(*case), cases)
    results: dict[str, dict[str, int]] = {}
    for (workload, side), bytes_ in zip(cases, peaks):
        results.setdefault(workload, {})[side] = bytes_
    return results


def tables(results: dict[str, dict[str, int]]) -> str:
    """In MiB, and ours as a multiple of torch.func's."""
    rows = [
        [workload, *(f"{bytes_[side] / MIB:.2f}" for side in SIDES)]
        + [f"{bytes_[OURS] / bytes_[TORCH_FUNC]:.2f}"]
        for workload, bytes_ in results.items()
    ]
    return table(["Peak memory, MiB", *SIDES, f"{OURS} / {TORCH_FUNC}"], rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(peak_here(*sys.argv[2:])))
    else:
        run_part("memory", __doc__, measure, tables)
