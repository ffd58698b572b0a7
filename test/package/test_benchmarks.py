"""What the benchmarks of networks of real size take for the same, and the tables that they write."""

import pytest
import torch

from benchmarks.peers import JAX_JIT, LOOP, OURS, TORCH_FUNC
from benchmarks.real.__main__ import check_alike
from benchmarks.real.tables import limits, tables
from benchmarks.real.uses import LIMIT


def report(**ratios_in_jax):
    """Per-sample gradients of two networks; JAX takes part with those that are named."""
    entries = {}
    for network in ("mlp", "gru"):
        ratios = {OURS: 1.0, TORCH_FUNC: 3.0, LOOP: 4.0, LIMIT: 0.8}
        if network in ratios_in_jax:
            ratios[JAX_JIT] = ratios_in_jax[network]
        entries[network] = {"samples": 16, "seconds": 0.0025, "ratios": ratios, "failed": {}}
    return {"uses": {"per-sample gradients": entries}}


def test_without_jax_there_is_no_column_of_it():
    lines = tables(report()).splitlines()
    assert lines[2] == f"| Network | samples | {OURS}, ms | {TORCH_FUNC} | {LOOP} | {LIMIT} |"
    assert lines[4] == "| mlp | 16 | 2.50 | 3.00 | 4.00 | 0.80 |"


def test_a_network_that_is_not_written_for_jax_has_an_empty_cell():
    lines = tables(report(mlp=0.5)).splitlines()
    assert lines[2].endswith(f"| {LOOP} | {JAX_JIT} | {LIMIT} |")
    assert lines[4] == "| mlp | 16 | 2.50 | 3.00 | 4.00 | 0.50 | 0.80 |"
    assert lines[5] == "| gru | 16 | 2.50 | 3.00 | 4.00 |  | 0.80 |"


def test_the_fastest_other_is_one_in_pytorch():
    head, _, mlp, gru = limits(report(mlp=0.5)).splitlines()
    assert head.endswith("fastest other in PyTorch |")
    for line in (mlp, gru):
        assert line.endswith(f"| 3.00 ({TORCH_FUNC}) |")


def test_results_are_compared_by_name():
    weight, bias = torch.randn(4, 3), torch.randn(4, 3)
    check_alike("JAX", {"bias": bias, "weight": weight}, {"weight": weight, "bias": bias})
    with pytest.raises(AssertionError, match="JAX: its numbers differ"):
        check_alike("JAX", {"bias": weight, "weight": bias}, {"weight": weight, "bias": bias})
    with pytest.raises(AssertionError, match="JAX: .*names"):
        check_alike("JAX", {"b": bias, "weight": weight}, {"weight": weight, "bias": bias})


def test_zeros_tell_nothing():
    with pytest.raises(AssertionError, match="zero"):
        check_alike("loop", torch.zeros(3), torch.zeros(3))
