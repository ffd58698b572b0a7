"""Step times and memory over thousands of training steps, beside torch.func's.

The loss of force matching is made of a gradient, so a step is a gradient of a gradient. If results
of transforms kept autograd's graph, each step would hold on to the one before: time and memory
would grow with the number of steps. Each library runs in a process of its own.

python -m benchmarks.steps [--steps 3000]
"""

import argparse
import os
import subprocess
import sys
import time
from types import ModuleType

import torch
from torch import Tensor

REPORTED = (10, 300, 3000)


def energy(weights: Tensor, positions: Tensor) -> Tensor:
    """A small network's sum over the particles."""
    return (positions @ weights.reshape(8, 8)).tanh().sum()


def resident_memory() -> float:
    """Of this process, in MiB."""
    with open("/proc/self/statm") as statistics:
        return int(statistics.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(library: ModuleType, name: str, steps: int) -> None:
    """Trains, and prints a line of the table at each of the reported steps."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    positions, weights = torch.randn(16, 8), torch.randn(64) * 0.1
    grad = library.grad

    def loss(weights: Tensor) -> Tensor:
        return grad(energy, 1)(weights, positions).square().sum()

    times = []
    for step in range(1, steps + 1):
        start = time.perf_counter()
        weights = weights - 1e-4 * grad(loss)(weights)
        times.append(time.perf_counter() - start)
        if step in REPORTED:
            median = sorted(times[-10:])[5] * 1e3
            print(
                f"| {name} | {step} | {median:.2f} ms | {resident_memory():.0f} MiB |", flush=True
            )


def main() -> None:
    """Runs both libraries, or the one that is named."""
    parser = argparse.ArgumentParser(description="Time and memory of training steps.")
    parser.add_argument("--steps", type=int, default=max(REPORTED))
    parser.add_argument("--library", choices=("functorch_ext", "torch.func"))
    arguments = parser.parse_args()
    if arguments.library == "functorch_ext":
        import functorch_ext

        run(functorch_ext, arguments.library, arguments.steps)
    elif arguments.library == "torch.func":
        run(torch.func, arguments.library, arguments.steps)
    else:
        print("| library | step | time | resident memory |\n| --- | --- | --- | --- |", flush=True)
        for library in ("functorch_ext", "torch.func"):
            command = [sys.executable, "-m", "benchmarks.steps", "--library", library]
            subprocess.run([*command, "--steps", str(arguments.steps)], check=True)


if __name__ == "__main__":
    main()
