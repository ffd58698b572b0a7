"""Counts what the import of the package costs programs that use no transform: it repeats.

Two processes run the same calls of plain PyTorch under Valgrind, one of them after
``import functorch_ext``, whose patches (docs/patches.md) are all that could slow them down.

python -m benchmarks.plain_programs [--output build/benchmarks/plain_programs.json]
"""

import copy
import gc
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.part import run_part

CALLS = 3  # The smallest count is taken: now and then a table or a heap grows.


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * cotangent


def programs() -> dict[str, Callable[[], Any]]:
    """Calls of what is patched, as plain programs make them."""
    x = torch.rand(4, 8)
    leaf = torch.rand(4, 8, requires_grad=True)
    hooked = nn.Linear(8, 8)
    hooked.register_full_backward_hook(lambda module, by_inputs, by_outputs: None)
    network = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))

    def training_step() -> None:
        network(x).sum().backward()
        network.zero_grad()

    def saved_hooks() -> None:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            leaf.sin()

    return {
        "torch.zeros(4)": lambda: torch.zeros(4),
        "torch.tensor([1., 2.])": lambda: torch.tensor([1.0, 2.0]),
        "x.clone()": lambda: x.clone(),
        "x.numpy()": lambda: x.numpy(),
        "x.data_ptr()": lambda: x.data_ptr(),
        "x.new_zeros(4)": lambda: x.new_zeros(4),
        "copy.deepcopy(x)": lambda: copy.deepcopy(x),
        "repr(x)": lambda: repr(x),
        "torch.autograd.grad": lambda: torch.autograd.grad(leaf.sin().sum(), leaf),
        "training step of an MLP": training_step,
        "custom Function": lambda: _Square.apply(leaf),
        "custom Function, backward": lambda: torch.autograd.grad(_Square.apply(leaf).sum(), leaf),
        "register_hook": lambda: leaf.register_hook(lambda cotangent: None).remove(),
        "module with a full backward hook": lambda: hooked(leaf).sum().backward(),
        "saved_tensors_hooks": saved_hooks,
        "checkpoint": lambda: checkpoint(network, leaf, use_reentrant=False).sum().backward(),
        "torch.func.grad": lambda: torch.func.grad(lambda y: y.sin().sum())(x),
        "torch.func.vmap": lambda: torch.func.vmap(torch.sin)(x),
    }


def count_here(with_package: bool) -> None:
    """Runs all programs under Valgrind, which dumps its counter after each call that counts."""
    if with_package:
        import functorch_ext  # noqa: F401
    assert ("functorch_ext" in sys.modules) == with_package
    torch.set_num_threads(1)
    gc.disable()
    calls = programs().values()
    for run in calls:
        for _ in range(3):
            run()
    subprocess.run(["callgrind_control", "--instr=on", str(os.getpid())], check=True)
    for run in calls:
        run()
        for _ in range(CALLS):
            torch._C._valgrind_toggle()
            run()
            torch._C._valgrind_toggle_and_dump_stats()


def measure() -> dict[str, dict[str, int]]:
    """Instructions of each program, ``without`` and ``with`` the package imported."""
    results: dict[str, dict[str, int]] = {name: {} for name in programs()}
    for side in ("without", "with"):
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "counts"
            command = [
                *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no"),
                *(f"--callgrind-out-file={output}", sys.executable, "-W", "ignore"),
                *("-m", "benchmarks.plain_programs", "--count", side),
            ]
            environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"Valgrind failed:\n{done.stderr}")
            for case, name in enumerate(results):
                dumps = [f"counts.{case * CALLS + call}" for call in range(1, CALLS + 1)]
                results[name][side] = min(_total(output.with_name(dump)) for dump in dumps)
    return results


def _total(dump: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"No total in Valgrind's dump:\n{dump.read_text()[:1000]}")
    return int(found[1])


def tables(results: dict[str, dict[str, int]]) -> str:
    """Instructions without and with the package, and the difference."""
    from benchmarks.report import table  # It imports the package.

    rows = [
        [name, f"{of['without']:,}", f"{of['with']:,}", f"{of['with'] / of['without'] - 1:+.1%}"]
        for name, of in results.items()
    ]
    return table(["Plain program, instructions", "without", "with", "more"], rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        count_here(sys.argv[2] == "with")
    else:
        run_part("plain_programs", __doc__, measure, tables)
