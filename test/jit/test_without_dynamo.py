"""Tracing leaves Dynamo alone until somebody imports it, who gets it whole."""

import subprocess
import sys

_BEFORE = """
import sys, torch, functorch_ext
def jit(f):
    return functorch_ext.jit(f, backend="graph")
def is_imported(name="torch._dynamo"):
    return name in sys.modules
x = torch.tensor([1.0, -2.0, 3.0])
"""
# What is left of the stand-ins when a trace is over: nothing.
_AFTER = """
import builtins
assert builtins.__import__.__module__ == "builtins"
import torch._dynamo.config
assert hasattr(torch._dynamo, "optimize") and torch._dynamo.config.recompile_limit > 0
assert torch.compile(lambda x: x.sin(), backend="eager", fullgraph=True)(x).equal(x.sin())
"""


def _run(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", _BEFORE + program + _AFTER],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_transforms_are_traced_without_it():
    _run(
        """
w = torch.randn(3, 3)
f = functorch_ext.vmap(functorch_ext.hessian(lambda x: torch.tanh(w @ x).square().sum()))
xs = torch.randn(4, 3)
functorch_ext.jit(functorch_ext.hessian(lambda x: torch.tanh(w @ x).sum()), backend="graph")(xs[0])
assert not is_imported()
torch.testing.assert_close(jit(f)(xs), f(xs))
jit(lambda x: x.clone().mul_(2).index_put_((torch.tensor([0]),), x[:1]))(x)
jit(functorch_ext.grad(lambda x: x[torch.tensor([0, 0, 1])].prod()))(x)
assert not is_imported()
model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
jit(lambda x: model(x).sum())(x).backward()
assert model[0].weight.grad is not None
assert not is_imported() and not is_imported("torch._inductor")
"""
    )


def test_sizes_that_depend_on_values_bring_it():
    _run(
        """
assert jit(lambda x: x[x > 0].sum())(x) == 4
assert jit(lambda x: x.sin() + x.sum().item())(x).equal(x.sin() + 2)
"""
    )


def test_the_program_imports_it_while_it_is_traced():
    _run(
        """
def f(x):
    y = x.sin()
    import torch._dynamo
    import torch._dynamo.utils
    assert torch._dynamo.utils.counters is not None
    return y + torch.ones(3)
assert jit(f)(x).equal(x.sin() + 1)
assert is_imported()
"""
    )


def test_the_program_asks_for_more_of_it():
    _run(
        """
def f(x):
    y = x.sin()
    assert torch._dynamo.is_compiling() is False
    return y * 2
assert jit(f)(x).equal(x.sin() * 2)
"""
    )


def test_a_setting_that_is_made_while_tracing():
    _run(
        """
def f(x):
    import torch._dynamo.config
    torch._dynamo.config.recompile_limit = 5
    return x * 2
jit(f)(x)
import torch._dynamo
assert torch._dynamo.config.recompile_limit == 5
"""
    )


def test_a_program_that_raises_while_it_is_traced():
    _run(
        """
def f(x):
    raise ValueError("no")
try:
    jit(f)(x)
except ValueError:
    pass
assert not is_imported()
"""
    )


def test_compiled_functions_inside():
    _run(
        """
compiled = torch.compile(lambda x: x.cos() + 1, backend="eager")
assert jit(lambda x: compiled(x) * 2)(x).equal((x.cos() + 1) * 2)
"""
    )
