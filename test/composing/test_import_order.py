"""A program may have taken `MyFunction.apply` before it imports functorch_ext."""

import subprocess
import sys

PROGRAM = """
import torch

class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, cotangent):
        return 30 * cotangent * ctx.saved_tensors[0] ** 2

cube = Cube.apply

from functorch_ext import grad, vmap

print(grad(lambda x: vmap(cube)(x).sum())(torch.ones(2)).tolist())
print(vmap(grad(cube))(torch.ones(2)).tolist(), Cube.apply == cube)
"""


def test_apply_taken_before_the_import():
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[30.0, 30.0]", "[30.0, 30.0] True"]


SHARDING = """
{}
from torch.distributed.fsdp._fully_shard import _fsdp_param_group as groups, _fsdp_state as states
{}

for func in (groups.FSDPParamGroup.unshard, states.FSDPState._register_pre_backward_hook):
    print(func.__code__.co_filename.endswith("_patches/sharded_modules.py"))
"""


def test_sharded_modules_imported_before_and_after():
    importing = "import functorch_ext"
    for lines in ((importing, ""), ("", importing)):
        command = [sys.executable, "-W", "ignore", "-c", SHARDING.format(*lines)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        assert run.stdout.splitlines() == ["True", "True"]
