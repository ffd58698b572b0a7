"""What the package replaces in PyTorch: all of it is listed, and can be undone and done again."""

import subprocess
import sys

import torch

from functorch_ext import patches, vmap

# Prints what differs in PyTorch's loaded modules and their classes after the import.
CHANGES = """
import inspect, sys
import torch, torch.utils.checkpoint, torch.autograd.functional, torch.utils.dlpack
import torch._vmap_internals
import torch._functorch.eager_transforms, torch._functorch.vmap
import torch._decomp.decompositions_for_jvp
import importlib.util
if importlib.util.find_spec("torch.nn.modules.linear_cross_entropy"):
    import torch.nn.modules.linear_cross_entropy

def attributes():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] != "torch" or name.startswith(("torch.ops", "torch.classes")):
            continue
        for key, value in list(vars(module).items()):
            found[name, key] = value
            if inspect.isclass(value) and value.__module__.split(".")[0] == "torch":
                for member, own in list(vars(value).items()):
                    found[f"{value.__module__}.{value.__name__}", member] = own
    return found

before = attributes()
import functorch_ext
after = attributes()
listed = {patch.target for patch in functorch_ext.patches()}
for (owner, name), value in before.items():
    if callable(value) and after.get((owner, name)) is not value:
        owner = owner.replace("torch._tensor.Tensor", "torch.Tensor")
        if f"{owner}.{name}" not in listed:
            print(owner, name)
"""


def test_nothing_is_replaced_that_is_not_listed():
    done = subprocess.run([sys.executable, "-c", CHANGES], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_each_patch_says_what_it_is_for():
    for patch in patches():
        assert patch.target.startswith("torch.") and patch.why and patch.cost, patch


def _gradients():
    def gradient(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad((x**2).sum(), x)[0]

    return vmap(gradient)(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()


def test_patches_can_be_taken_off_and_put_on_again():
    expected = _gradients()
    zeros = torch.zeros
    try:
        patches().take_off()
        assert torch.zeros is zeros  # the object stays, for those who know it by identity
        owners = (torch.Tensor.new, torch.autograd.graph._engine_run_backward)
        assert all("functorch_ext" not in owner.__code__.co_filename for owner in owners[1:])
        x = torch.ones(2, requires_grad=True)
        assert torch.autograd.grad((x**3).sum(), x)[0].tolist() == [3, 3]
        made = vmap(lambda x: x + torch.zeros(2))(torch.ones(3, 2))
        assert made.tolist() == [[1, 1]] * 3
        try:
            vmap(lambda x: x.new(2))(torch.ones(3, 2))
            raise AssertionError("a patch is still on")
        except RuntimeError:
            pass
    finally:
        patches().put_on()
    assert _gradients() == expected


def test_the_table_has_a_row_for_each():
    lines = repr(patches()).splitlines()
    assert len(lines) == len(patches()) + 1
    assert lines[0].startswith("Replaced")
