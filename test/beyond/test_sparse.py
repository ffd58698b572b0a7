"""Sparse Jacobians and Hessians: arguments, plans, layouts, errors, and other transforms."""

import pytest
import torch

from functorch_ext import grad, jit, jvp, sparse_hessian, sparse_jacobian, vmap
from test.oracle import assert_close, loop, rand


def banded(x):
    return x.roll(1) * x + x.roll(-1).sin()


def chain(x):
    return ((x[1:] - x[:-1]) ** 4).sum()


def dense(function, x):
    return torch.autograd.functional.jacobian(function, x)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_layouts_and_chunks(layout, chunk_size):
    x = rand(9)
    got = sparse_jacobian(banded, layout=layout, chunk_size=chunk_size)(x)
    assert got.layout is layout
    assert_close(got.to_dense(), dense(banded, x))
    assert_close(got @ x, dense(banded, x) @ x)


@pytest.mark.parametrize(
    "make", [lambda p: p, lambda p: p.to_sparse(), lambda p: p.to_sparse_csr()]
)
def test_a_given_pattern(make):
    x = rand(9)
    pattern = make(torch.eye(9).roll(1, 0) + torch.eye(9) + torch.eye(9).roll(-1, 0) != 0)
    jacobian = sparse_jacobian(banded, pattern=pattern)
    assert_close(jacobian(x).to_dense(), dense(banded, x))
    assert jacobian.products(x) == 3


def test_a_pattern_that_lacks_entries_raises():
    with pytest.raises(RuntimeError, match="isn't zero outside of its pattern"):
        sparse_jacobian(banded, pattern=torch.eye(9, dtype=torch.bool))(rand(9))
    with pytest.raises(ValueError, match="rows and 9 columns"):
        sparse_jacobian(banded, pattern=torch.eye(8, dtype=torch.bool))(rand(9))


def test_containers_argnums_and_keywords():
    def function(scale, tree, *, power):
        return {"a": tree["a"] ** power * scale, "b": tree["b"][0].sum(1)}

    scale, tree = rand(3), {"a": rand(3), "b": [rand(2, 2)]}
    got = sparse_jacobian(function, 1)(scale, tree, power=3).to_dense()

    def flat(z):
        out = function(scale, {"a": z[:3], "b": [z[3:].view(2, 2)]}, power=3)
        return torch.cat([out["a"], out["b"]])

    assert_close(got, dense(flat, torch.cat([tree["a"], tree["b"][0].flatten()])))
    both = sparse_jacobian(function, (1, 0))(scale, tree, power=2)
    assert both.shape == (5, 10)


def test_rows_are_pulled_back_where_they_need_fewer():
    jacobian = sparse_jacobian(lambda x: torch.stack([x[:5].prod(), x[5:].exp().sum()]))
    x = rand(10)
    assert jacobian.products(x) == 1
    assert_close(jacobian(x).to_dense(), dense(jacobian.__wrapped__, x))


def test_a_plan_for_each_shape_and_each_constant():
    calls = []

    def function(x, shift):
        calls.append(shift)
        return x * x.roll(shift)

    jacobian = sparse_jacobian(function)
    for x, shift in [(rand(5), 1), (rand(5), 2), (rand(7), 2), (rand(5), 1)]:
        assert_close(jacobian(x, shift).to_dense(), dense(lambda x: x * x.roll(shift), x))
    before = len(calls)
    jacobian(rand(5), 2)
    assert len(calls) == before + 1  # the point alone: no trace


def test_a_constant_that_is_written_to():
    matrix = torch.eye(4).double()
    jacobian = sparse_jacobian(lambda x: matrix @ x)
    assert jacobian.indices(rand(4)).shape[1] == 4
    matrix[0, 3] = 2
    assert_close(jacobian(rand(4)).to_dense(), matrix)


def test_values_that_decide_are_refused():
    def function(x):
        return x if x.sum() > 0 else x.flip(0)

    with pytest.raises(RuntimeError, match="reads the value of a tensor at"):
        sparse_jacobian(function)(rand(4))
    with pytest.raises(RuntimeError, match="reads the value of a tensor at"):
        sparse_jacobian(lambda x: x[x > 0])(rand(4))
    pattern = torch.eye(4) + torch.eye(4).flip(0)
    x = rand(4)
    assert_close(sparse_jacobian(function, pattern=pattern)(x).to_dense(), dense(function, x))


def test_other_errors():
    with pytest.raises(ValueError, match="expected layout to be"):
        sparse_jacobian(banded, layout=torch.strided)
    with pytest.raises(RuntimeError, match="expected real inputs"):
        sparse_jacobian(banded)(rand(3, dtype=torch.complex128))
    with pytest.raises(RuntimeError, match="scalar Tensor"):
        sparse_hessian(banded)(rand(3))


@pytest.mark.parametrize("known", [True, False])
def test_under_vmap(known):
    jacobian, hessian = sparse_jacobian(banded), sparse_hessian(chain)
    x = rand(3, 6)
    if known:
        jacobian(x[0]), hessian(x[0])
    got, curvature = vmap(jacobian.values)(x), vmap(hessian.values)(x)
    for i in range(3):
        rows, columns = jacobian.indices(x[i])
        assert_close(got[i], dense(banded, x[i])[rows, columns])
        rows, columns = hessian.indices(x[i])
        reference = torch.autograd.functional.hessian(chain, x[i])
        assert_close(curvature[i], reference[rows, columns])
    with pytest.raises(RuntimeError, match=r"Use .values"):
        vmap(jacobian)(x)


def test_derivatives_of_the_entries():
    jacobian, x, v = sparse_jacobian(banded), rand(6), rand(6)
    number = lambda x: (jacobian(x).to_dense() ** 2).sum()

    def reference(x):
        matrix = torch.autograd.functional.jacobian(banded, x, create_graph=True)
        return (matrix**2).sum()

    gradient = torch.autograd.functional.jacobian(reference, x)
    assert_close(grad(number)(x), gradient)
    entries = lambda x: (jacobian.values(x) ** 2).sum()
    assert_close(grad(entries)(x), gradient)
    assert_close(jvp(entries, (x,), (v,))[1], gradient @ v)
    xs = rand(2, 6)
    assert_close(vmap(grad(entries))(xs), loop(lambda x: dense(reference, x))(xs))
    leaf = x.clone().requires_grad_()
    assert_close(torch.autograd.grad(entries(leaf), leaf)[0], gradient)


def test_in_a_jitted_function():
    jacobian = sparse_jacobian(banded)
    entries = jit(lambda x: jacobian.values(x) * 2, backend="graph")
    for x in (rand(6), rand(6)):
        assert_close(entries(x), sparse_jacobian(banded).values(x) * 2)


def test_as_many_products_as_the_band_is_wide():
    x = rand(3000)
    jacobian = sparse_jacobian(lambda x: x[2:] * x[1:-1] * x[:-2])
    assert jacobian.products(x) == 3
    assert jacobian.indices(x).shape == (2, 3 * 2998)
    v = rand(3000)
    assert_close(jacobian(x) @ v, jvp(jacobian.__wrapped__, (x,), (v,))[1])


def test_no_elements():
    assert sparse_jacobian(banded)(rand(0)).shape == (0, 0)
    assert sparse_hessian(chain)(rand(1)).to_dense().tolist() == [[0.0]]
