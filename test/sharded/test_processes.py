"""Sharded tensors, in two and four processes."""

import subprocess
import sys

import pytest

from test.releases import since


def launch(processes, module, *arguments):
    """What the processes print; an error if one of them fails."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", module]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@since((2, 12), "DTensor has no strategy for squeeze, which matmul calls")
@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_transforms_of_sharded_tensors(processes):
    printed = launch(processes, "test.sharded.programs")
    assert printed.count(f"all right in {processes}") == processes


def test_a_hessian_whose_columns_are_divided():
    printed = launch(2, "tutorials.sharded_hessian", "--width", "8", "--samples", "16", "--check")
    assert "2 processes: Hessian (136, 136), of which each has (136, 68)" in printed


def test_the_same_in_one_process_without_a_launcher():
    command = [sys.executable, "-m", "tutorials.sharded_hessian", "--width", "8", "--check"]
    printed = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=300
    ).stdout
    assert "1 process: Hessian (136, 136), of which each has (136, 136)" in printed
