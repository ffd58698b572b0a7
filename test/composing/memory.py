"""Peak memory of a gradient: plain autograd, functorch_ext and torch.func, each in a process.

Counted by a dispatch mode would miss what kernels allocate inside, so the allocator is asked: the
profiler tells of every allocation and release on the CPU, with the total at that time.
"""

import json
import subprocess
import sys

import torch
from torch import nn
from torch.autograd.profiler import profile

from test.composing.outcome import transforms

MIB = 2**20
PLAIN = "torch.autograd.grad"
SIDES = (PLAIN, "functorch_ext", "torch.func")


def chain():
    """80 operators, each of which saves 8 MiB for its derivative."""

    def loss(x):
        for _ in range(40):
            x = (x * x).sin()
        return x.sum()

    return loss, (torch.linspace(0, 1, 2 * MIB),)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(4, channels) for _ in range(2))

    def forward(self, x):
        y = self.norms[0](self.first(x)).relu()
        return (x + self.norms[1](self.second(y))).relu()


def residual():
    """A small ResNet, by all of its parameters."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), *(Block(16) for _ in range(6)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    images, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 10
    names, parameters = zip(*module.named_parameters())

    def loss(*parameters):
        outputs = torch.nn.utils.stateless.functional_call(
            module, dict(zip(names, parameters)), (images,)
        )
        return nn.functional.cross_entropy(outputs, labels)

    return loss, tuple(p.detach() for p in parameters)


WORKLOADS = {"80 operators on 8 MiB": chain, "a ResNet-like network": residual}


def gradient(side, loss, args):
    if side != PLAIN:
        return transforms(side).grad(loss, tuple(range(len(args))))(*args)
    args = [x.detach().requires_grad_() for x in args]
    return torch.autograd.grad(loss(*args), args)


def measure(workload, side):
    """The peak over what is allocated at the start, in bytes."""
    torch.set_num_threads(1)
    loss, args = WORKLOADS[workload]()
    small = [x[:1] for x in args] if workload == "80 operators on 8 MiB" else args
    gradient(side, loss, small)  # whatever is allocated once
    with profile(profile_memory=True, use_kineto=True) as profiler:
        result = gradient(side, loss, args)
    del result
    held = peak = 0
    for event in profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def peak(workload, side):
    """The same, in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-m", "test.composing.memory", workload, side]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def table():
    """The section of the page on memory."""
    lines = ["## Peak memory of grad, in MiB", "", "| Workload | " + " | ".join(SIDES) + " |"]
    lines += ["| --- |" + " ---: |" * len(SIDES)]
    for workload in WORKLOADS:
        cells = [f"{peak(workload, side) / MIB:.1f}" for side in SIDES]
        lines.append(f"| {workload} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
