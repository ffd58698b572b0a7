"""Kernels that another process has compiled."""

import subprocess
import sys

import pytest
import torch

from functorch_ext import jit
from functorch_ext._jit import disk_cache

PROGRAM = """
import pathlib, sys
import torch
from functorch_ext import grad, jit
from functorch_ext._jit import disk_cache, inductor

disk_cache._folder = lambda: pathlib.Path(sys.argv[1])
if sys.argv[2] == "second":
    def refuse(*args):
        raise AssertionError("compiled again")
    inductor._compile = refuse
x = torch.linspace(0, 1, 5)
weight = torch.ones(5, requires_grad=True)
torch.testing.assert_close(jit(lambda x: x.sin() * 3.25)(x), x.sin() * 3.25)
result = jit(lambda x: (x.cos() * weight).sum())(x)
result.backward()
torch.testing.assert_close(weight.grad, x.cos())
assert ("torch._inductor.compile_fx" in sys.modules) == (sys.argv[2] == "first")
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    for which in ("first", "second"):
        subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path), which], check=True)


def key(function, *args):
    graph = jit(function, backend="graph").lower(*args).graph
    values = [n.meta["val"] for n in graph.graph.nodes if n.op == "placeholder"]
    return disk_cache.key_of(graph, values, {})


def test_keys():
    x = torch.randn(4)
    first = key(lambda x: x * 2, x)
    assert first == key(lambda y: y * 2, torch.randn(4))
    others = [
        key(lambda x: x * 2.0, x),
        key(lambda x: x * 2, torch.randn(5)),
        key(lambda x: x * 2, x.double()),
        key(lambda x: x * 2, torch.randn(8)[::2]),
    ]
    assert len({first, *others}) == 5


def test_inductors_settings_are_part_of_the_key():
    from torch._inductor import config

    x = torch.randn(4)
    first = key(torch.sin, x)
    with config.patch(max_fusion_size=2):
        assert key(torch.sin, x) != first
    assert key(torch.sin, x) == first
    with config.patch(force_disable_caches=True):
        assert key(torch.sin, x) is None


def test_a_full_disk_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(disk_cache, "_folder", lambda: tmp_path / "file" / "under")
    disk_cache.store("key", __file__, 1)
    assert disk_cache.load("key") is None
