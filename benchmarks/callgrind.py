"""Counting machine instructions with Valgrind's tool callgrind: a figure that repeats.

One process counts everything, because starting PyTorch under Valgrind takes most of a minute. A
module that counts calls ``count(calls)`` in that process; ``counts_of`` starts it and reads.
"""

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

REPEATS = 3  # The smallest count is taken: now and then a table or a heap grows.


def is_available() -> bool:
    """Is there a Valgrind, and a PyTorch that can be counted?"""
    return shutil.which("valgrind") is not None and torch._C._valgrind_supported_platform()


def count(calls: Iterable[Callable[[], Any]]) -> None:
    """Runs calls under Valgrind, which dumps its counter after each that counts."""
    calls = list(calls)
    torch.set_num_threads(1)
    gc.disable()
    for run in calls:
        run()  # Imports and initializes what is left.
    # Valgrind is several times as fast while it doesn't prepare for counting.
    subprocess.run(["callgrind_control", "--instr=on", str(os.getpid())], check=True)
    for run in calls:
        run()
        for _ in range(REPEATS):
            torch._C._valgrind_toggle()
            run()
            torch._C._valgrind_toggle_and_dump_stats()


def counts_of(module: str, arguments: list[str], number: int) -> list[int]:
    """The instructions of each of a number of calls.

    Args:
        module: what calls ``count`` when it is run.
        arguments: its command line.
        number: how many calls it counts.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "counts"
        command = [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no"),
            *(f"--callgrind-out-file={output}", sys.executable, "-W", "ignore", "-m", module),
        ]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"Valgrind failed:\n{done.stderr}")
        dumps = [output.with_name(f"counts.{i + 1}") for i in range(number * REPEATS)]
        totals = [_total(dump) for dump in dumps]
    return [min(totals[i : i + REPEATS]) for i in range(0, len(totals), REPEATS)]


def _total(dump: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"No total in Valgrind's dump:\n{dump.read_text()[:1000]}")
    return int(found[1])
