"""A Hessian whose columns are divided among processes: each computes and keeps its part.

The parameters are a replicated `DTensor`. So the vectors that `hessian` pushes through are sharded
over the mesh, and so are the columns of the result: no process ever holds more than its part.

    torchrun --nproc-per-node 4 -m tutorials.sharded_hessian [--width 24]
"""

import argparse
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, Replicate, init_device_mesh

from functorch_ext import hessian


def network(parameters: Tensor, x: Tensor, width: int) -> Tensor:
    """Two hidden layers of `width` units, all of whose weights are one vector."""
    sizes = [(x.shape[1], width), (width, width), (width, 1)]
    start = 0
    for number, (inputs, outputs) in enumerate(sizes):
        weight = parameters[start : start + inputs * outputs].view(inputs, outputs)
        start += inputs * outputs
        x = x @ weight if number == len(sizes) - 1 else torch.tanh(x @ weight)
    return x


def count_of(features: int, width: int) -> int:
    return features * width + width * width + width


def problem(samples: int, features: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and parameters: the same numbers in each process."""
    torch.manual_seed(0)
    x = torch.randn(samples, features, dtype=torch.float64)
    parameters = torch.randn(count_of(features, width), dtype=torch.float64) / width**0.5
    return x, x.prod(1, keepdim=True), parameters


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="sharded_hessian", description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--check", action="store_true", help="compare with one process's Hessian")
    parser.add_argument("--save", type=Path, help="a folder for the part of each process")
    options = parser.parse_args(arguments)

    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    processes = distributed.get_world_size()
    mesh = init_device_mesh("cpu", (processes,))
    features, width = 8, options.width
    x, y, parameters = problem(options.samples, features, width)
    count = len(parameters) - len(parameters) % processes
    fixed = parameters[count:]

    def replicated(tensor: Tensor) -> Tensor:
        return DTensor.from_local(tensor, mesh, [Replicate()], run_check=False)

    def loss(inputs: Tensor, targets: Tensor, rest: Tensor, free: Tensor) -> Tensor:
        output = network(torch.cat([free, rest]), inputs, width)
        return (output - targets).square().mean()

    data = [replicated(each) for each in (x, y, fixed)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    distributed.barrier()
    start, used = time.perf_counter(), time.process_time()
    found = hessian(lambda free: loss(*data, free))(replicated(parameters[:count]))
    elapsed, used = time.perf_counter() - start, time.process_time() - used
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert isinstance(found, DTensor)
    part = tuple(found.to_local().shape)
    if distributed.get_rank() == 0:
        print(
            f"{processes} {'process' if processes == 1 else 'processes'}: "
            f"Hessian {tuple(found.shape)}, of which each has {part}; "
            f"{elapsed:.2f} s, {used:.2f} s of processor and {grown / 1024:.0f} MiB in one process"
        )
    result: dict[str, Any] = {"part": part, "processes": processes}
    if options.save is not None:
        measured = {"processor": used, "mebibytes": grown / 1024}
        saved = {"hessian": found.to_local(), **measured}
        torch.save(saved, options.save / f"{distributed.get_rank()}.pt")
    if options.check:
        whole = hessian(lambda free: loss(x, y, fixed, free))(parameters[:count])
        torch.testing.assert_close(found.full_tensor(), whole)
        result["right"] = True
    distributed.destroy_process_group()
    return result


if __name__ == "__main__":
    # Without torchrun: one process.
    for variable, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}.items():
        os.environ.setdefault(variable, value)
    os.environ.setdefault("MASTER_PORT", "0")
    main()
