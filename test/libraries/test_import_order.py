"""The package before or after another library: the order of the imports makes no difference."""

import importlib.util
import subprocess
import sys

import pytest

LIBRARIES = ("transformers", "tensordict", "gpytorch", "torch_geometric", "e3nn.o3")
PROGRAM = """
import {first}, {second}
import torch, functorch_ext
from functorch_ext import hessian, grad, vmap

rows = torch.arange(6.0).view(3, 2)
func = lambda x: (x.sin() * x).sum()
print(vmap(grad(func))(rows), vmap(hessian(func))(rows))
print(torch.stack([x * 2 for x in rows]).tolist(), repr(torch.nn.Linear(2, 1)))
print(sorted(patch.target for patch in functorch_ext.patches()))
"""


def run(first, second):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(first=first, second=second)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_order(library):
    if importlib.util.find_spec(library.split(".")[0]) is None:
        pytest.skip(f"{library} is not installed")
    assert run("functorch_ext", library) == run(library, "functorch_ext")


def test_import_leaves_alone_what_is_needed_later():
    """PyTorch's decompositions for forward mode take longer to import than all of the package."""
    program = """
import sys
import torch, functorch_ext
print([name for name in ("torch._decomp.decompositions_for_jvp", "torch._inductor", "sympy.printing")
    if name in sys.modules])
primals = (torch.tensor([1.0, 2.0]).log_softmax(0),)
print(functorch_ext.jvp(functorch_ext.grad(lambda x: x.log_softmax(0)[0]), primals, primals)[1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "[]"
