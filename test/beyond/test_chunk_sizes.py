"""`chunk_size` as an amount of memory, and the bar of `progress=True`."""

import pytest
import torch
from torch import nn

from functorch_ext import (
    clipped_grad_sum,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jit,
    laplacian,
    per_sample_grad_norms,
    per_sample_grads,
    sparse_jacobian,
    vmap,
)
from functorch_ext._memory import Budget


def per_sample(w, x):
    return torch.tanh(torch.tanh(x @ w) @ w).sum()


def point(samples=40):
    return torch.randn(20, 20, dtype=torch.float64), torch.randn(samples, 20, dtype=torch.float64)


def sizes_of_chunks(chunks):
    sizes = []
    for piece in chunks:
        sizes.append(piece[1])
        chunks.call(torch.zeros, piece[1], 100)  # 400 bytes for a sample
    return sizes


def test_two_chunks_are_measured_and_the_rest_are_as_large_as_fits():
    budget = Budget(4000)
    assert sizes_of_chunks(budget.chunks(30, [])) == [1, 2, 9, 9, 9]
    assert sizes_of_chunks(budget.chunks(30, [])) == [10, 10, 10]  # known by now
    assert sizes_of_chunks(budget.chunks(3, [])) == [3]
    assert sizes_of_chunks(Budget(1).chunks(5, [])) == [1, 2, 1, 1]


def test_costs_are_kept_by_shape():
    budget = Budget(4000)
    sizes_of_chunks(budget.chunks(30, [torch.ones(3)]))
    assert sizes_of_chunks(budget.chunks(30, [torch.ones(3)])) == [10, 10, 10]
    assert sizes_of_chunks(budget.chunks(30, [torch.ones(4)])) == [1, 2, 9, 9, 9]


@pytest.mark.parametrize("chunk_size", ["auto", "30 KiB", "1.5 GiB", "1 B"])
def test_results_are_those_of_one_chunk(chunk_size):
    w, x = point()
    gradients = vmap(grad(per_sample), (None, 0))
    in_chunks = vmap(grad(per_sample), (None, 0), chunk_size=chunk_size)
    for _ in range(2):
        torch.testing.assert_close(in_chunks(w, x), gradients(w, x))
    for transform in (jacrev, jacfwd, hessian):
        by_parts = transform(per_sample, 1, chunk_size=chunk_size)
        for _ in range(2):
            torch.testing.assert_close(by_parts(w, x[0]), transform(per_sample, 1)(w, x[0]))


def test_less_memory_makes_more_chunks():
    w, x = point()
    numbers = []
    for amount in ("20 KiB", "80 KiB", "1 GiB"):
        calls = []

        def noted(w, x, calls=calls):
            calls.append(1)
            return per_sample(w, x)

        mapped = vmap(grad(noted), (None, 0), chunk_size=amount)
        mapped(w, x)
        calls.clear()
        mapped(w, x)
        numbers.append(len(calls))
    assert numbers[0] > numbers[1] > numbers[2] == 1


@pytest.mark.parametrize("chunk_size", ["auto", "10 KiB"])
def test_functions_of_modules_and_diagonals(chunk_size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.randn(12, 6, dtype=torch.float64), torch.randint(3, (12,))
    loss = nn.functional.cross_entropy
    for transform in (per_sample_grads, per_sample_grad_norms):
        plain, chunked = transform(model, loss), transform(model, loss, chunk_size=chunk_size)
        torch.testing.assert_close(chunked(x, y), plain(x, y))
    plain = clipped_grad_sum(model, loss, 0.5)(x, y)
    torch.testing.assert_close(
        clipped_grad_sum(model, loss, 0.5, chunk_size=chunk_size)(x, y), plain
    )
    f = lambda x: model(x).sum()
    torch.testing.assert_close(laplacian(f, chunk_size=chunk_size)(x[0]), laplacian(f)(x[0]))
    upwind = lambda x: x * (x - x.roll(1))
    z = torch.randn(50, dtype=torch.float64)
    in_chunks = sparse_jacobian(upwind, chunk_size=chunk_size)(z)
    torch.testing.assert_close(in_chunks.to_dense(), sparse_jacobian(upwind)(z).to_dense())


def test_errors_are_a_samples_while_chunks_are_measured():
    matrices, vectors = torch.randn(17, 2, 3).double(), torch.randn(17, 1).double()
    with pytest.raises(RuntimeError, match=r"mat \(2x3\), vec \(1\)"):
        vmap(torch.mv, chunk_size="auto")(matrices, vectors)
    classes = torch.zeros(17, 1, dtype=torch.long)
    with pytest.raises(RuntimeError, match="0D or 1D target tensor expected"):
        clipped_grad_sum(nn.Linear(4, 10), nn.functional.cross_entropy, 1.0, chunk_size="auto")(
            torch.randn(17, 4), classes
        )


def test_draws_are_the_same_in_all_chunks_where_asked():
    noisy = lambda x: x + torch.rand(())
    draws = vmap(noisy, randomness="same", chunk_size="1 B")(torch.zeros(8))
    assert (draws == draws[0]).all()
    draws = vmap(noisy, randomness="different", chunk_size="1 B")(torch.zeros(8))
    assert len(draws.unique()) == 8


def test_nested_in_another_vmap_its_samples_count():
    w, x = point(12)
    inner = vmap(grad(per_sample), (None, 0), chunk_size="40 KiB")
    found = vmap(inner, (0, None))(torch.stack([w, 2 * w]), x)
    expected = torch.stack([vmap(grad(per_sample), (None, 0))(each, x) for each in (w, 2 * w)])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(inner(w, x), expected[0])


def test_writes_to_samples_happen_once():
    x = torch.zeros(10, 2)
    vmap(lambda row: row.add_(1), chunk_size="1 B")(x)
    assert (x == 1).all()


def test_progress_shows_samples(capsys):
    pytest.importorskip("tqdm")
    x = torch.randn(6)
    found = vmap(torch.sin, chunk_size=2, progress=True)(x)
    torch.testing.assert_close(found, x.sin())
    shown = capsys.readouterr().err
    assert "vmap" in shown and "6/6" in shown
    jacrev(torch.sin, progress=True, chunk_size=4)(x)
    assert "jacrev" in capsys.readouterr().err
    vmap(torch.sin, chunk_size=2)(x)
    assert not capsys.readouterr().err


def test_a_bar_ends_where_the_function_raises(capsys):
    tqdm = pytest.importorskip("tqdm").tqdm
    with pytest.raises(ZeroDivisionError):
        vmap(lambda x: x * (1 / 0), progress=True)(torch.ones(3))
    assert not tqdm._instances


def test_compiled_and_traced_it_is_one_chunk():
    w, x = point(10)
    mapped = vmap(grad(per_sample), (None, 0), chunk_size="1 B")
    expected = vmap(grad(per_sample), (None, 0))(w, x)
    torch.testing.assert_close(jit(mapped, backend="graph")(w, x), expected)
    compiled = torch.compile(lambda w, x: mapped(w, x), backend="eager")
    torch.testing.assert_close(compiled(w, x), expected)
