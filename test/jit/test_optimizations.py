"""What the passes take out of graphs, and that the results stay what they were."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from functorch_ext import jit
from functorch_ext._jit.passes.basis import remove_products_with_basis
from functorch_ext._jit.passes.copies import merge_views, remove_copies
from functorch_ext._jit.passes.factorizations import share_factorizations
from functorch_ext._jit.passes.gathered import keep_gathered
from functorch_ext._jit.passes.neutral import remove_neutral


def changed(function, change, *args):
    """How often operators are called after the change; values are compared."""
    graph = make_fx(lambda *args: [function(*args)], tracing_mode="fake")(*args)
    change(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    found, expected = graph(*args)[0], function(*args)
    torch.testing.assert_close(found, expected)
    assert found.stride() == expected.stride()
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


aten = torch.ops.aten


def test_copies():
    x = torch.randn(3, 2)
    function = lambda x: x.sin().clone().cos()
    assert changed(function, remove_copies, x) == [aten.sin.default, aten.cos.default]
    # Another layout is no copy, and a result is the caller's own.
    transposed = lambda x: x.t().clone(memory_format=torch.contiguous_format).cos()
    assert aten.clone.default in changed(transposed, remove_copies, x)
    assert aten.clone.default in changed(lambda x: x.clone(), remove_copies, x)


def test_views_of_views():
    x = torch.randn(6, 2)
    function = lambda x: x.view(3, 4).view(2, 6).view(12).sin()
    assert changed(function, merge_views, x) == [aten.view.default, aten.sin.default]
    back = lambda x: x.view(3, 4).view(6, 2).sin()
    assert changed(back, merge_views, x) == [aten.sin.default]
    assert changed(lambda x: x.t().t().sin(), merge_views, x) == [aten.sin.default]


@pytest.mark.parametrize(
    "function",
    [
        lambda w: (torch.eye(4) @ w).sin(),
        lambda w: (torch.eye(4).view(4, 1, 4).view(4, 4) @ w).sin(),
        lambda w: (w.t() @ torch.eye(4)).sin(),
        lambda w: (torch.eye(4) @ w[:, :2]).sin(),
        lambda w: (torch.ones(()).expand(3).view(3, 1) @ w[:1]).sin(),
    ],
)
def test_products_with_a_basis(function):
    w = torch.randn(4, 4)[:, :3]
    assert aten.mm.default not in changed(function, remove_products_with_basis, w)


@pytest.mark.parametrize(
    "function",
    [
        lambda w: (torch.eye(4, 3) @ w[:3]).sin(),
        lambda w: (torch.eye(4).view(2, 8)[:, :4] @ w).sin(),
        lambda w: (torch.ones(3, 2) @ w[:2]).sin(),
    ],
)
def test_other_products_stay(function):
    assert aten.mm.default in changed(function, remove_products_with_basis, torch.randn(4, 3))


def test_arithmetic_that_changes_nothing():
    x = torch.randn(3)
    function = lambda x: (torch.pow(x, 1.0) * 1 + torch.zeros(()).expand(3)).sin()
    assert changed(function, remove_neutral, x) == [aten.sin.default]
    # Promotion to another dtype is a change.
    integers = lambda n: torch.mul(n, 1.0).sin()
    assert aten.mul.Tensor in changed(integers, remove_neutral, torch.arange(3))


def _density(matrix, right):
    return torch.logdet(matrix) + (right * torch.linalg.solve(matrix, right)).flatten(1).sum(1)


@pytest.mark.parametrize("right", [(5, 4), (5, 4, 2)])
def test_one_factorization_for_a_determinant_and_a_solution(right):
    root = torch.randn(5, 4, 4, dtype=torch.float64)
    args = root @ root.mT + torch.eye(4, dtype=torch.float64), torch.randn(right).double()
    found = changed(_density, share_factorizations, *args)
    assert found.count(aten.linalg_lu_factor_ex.default) == 1
    assert not {aten._linalg_slogdet.default, aten._linalg_solve_ex.default} & {*found}


def test_signs_of_determinants_from_a_factorization():
    matrices = torch.randn(20, 3, 3, dtype=torch.float64)
    matrices[0] = 0
    both = lambda a: torch.stack([torch.linalg.slogdet(a)[0], torch.linalg.slogdet(a)[1]])
    found = changed(both, share_factorizations, matrices)
    assert aten._linalg_slogdet.default not in found
    assert found.count(aten.linalg_lu_factor_ex.default) == 1


def test_solutions_of_other_matrices_keep_their_factorizations():
    args = torch.randn(3, 3), torch.randn(3, 3)
    function = lambda a, b: torch.logdet(a @ a.mT) + torch.linalg.solve(b, a).sum()
    assert aten.linalg_lu_factor_ex.default not in changed(function, share_factorizations, *args)


def test_a_singular_matrix_raises_with_one_factorization():
    fast = jit(lambda a, b: torch.logdet(a) + torch.linalg.solve(a, b).sum(), backend="graph")
    fast(torch.eye(3), torch.ones(3))
    with pytest.raises(torch.linalg.LinAlgError, match="singular"):
        fast(torch.zeros(3, 3), torch.ones(3))


def test_unit_matrices_whose_rows_are_gathered_are_kept_in_memory():
    from torch._inductor import inductor_prims

    index, kept = torch.tensor([0, 2, 1]), inductor_prims.force_stride_order
    function = lambda i: torch.eye(6).view(6, 3, 2)[:, i].sin()
    assert kept in changed(function, keep_gathered, index)
    assert kept not in changed(lambda i: torch.eye(3).sin() + i, keep_gathered, index)
