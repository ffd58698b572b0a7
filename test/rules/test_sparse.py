"""Sparse matrices among dense tensors, and layers whose gradients are sparse."""

import warnings

import pytest
import torch
from torch.nn import functional as F

from functorch_ext import (
    FallbackWarning,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    vmap,
)
from test import oracle
from test.oracle import assert_close, loop, rand

torch.manual_seed(0)
MATRIX = rand(4, 6).relu()
LAYOUTS = {
    "coo": MATRIX.to_sparse(),
    "csr": MATRIX.to_sparse_csr(),
    "csc": MATRIX.to_sparse_csc(),
}


def not_coo(matrix):
    """PyTorch has no addmv of matrices in this layout."""
    return matrix.to_sparse_csr() if matrix.layout == torch.sparse_coo else matrix


PRODUCTS = {
    "sparse.mm": lambda s, x: torch.sparse.mm(s, x),
    "sparse.addmm": lambda s, x: torch.sparse.addmm(x.sum(0), s, x, beta=2, alpha=3),
    "mm": lambda s, x: torch.mm(s, x),
    "matmul": lambda s, x: s @ x,
    "addmm": lambda s, x: torch.addmm(x.sum(0), s, x, beta=2, alpha=3),
    "mv": lambda s, x: torch.mv(s, x[:, 0]),
    "addmv": lambda s, x: torch.addmv(x[0, 0].expand(4), not_coo(s), x[:, 0], beta=2, alpha=3),
    "matmul with a vector": lambda s, x: s @ x[:, 0],
    "from the right": lambda s, x: x.t() @ s.t(),
    "sparse.mm from the right": lambda s, x: torch.sparse.mm(x.t(), s.t()),
    "linear": lambda s, x: F.linear(x.t(), s),
}


@pytest.fixture(autouse=True)
def no_loops():
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        yield


@pytest.fixture(params=PRODUCTS)
def product(request):
    return PRODUCTS[request.param]


@pytest.fixture(params=LAYOUTS)
def sparse(request):
    return LAYOUTS[request.param]


def by(matrix, product):
    return lambda x: product(matrix, x).sin()


def total(function):
    return lambda *args: function(*args).sum()


def test_of_each_sample(sparse, product):
    x = rand(3, 6, 2)
    expected = loop(by(MATRIX, product))(x)
    assert_close(vmap(by(sparse, product))(x), expected)
    assert_close(vmap(by(sparse, product), 1)(x.movedim(0, 1)), expected)
    assert_close(vmap(vmap(by(sparse, product)))(x[None]), expected[None])


def test_gradients_by_the_dense_factor(sparse, product):
    x = rand(3, 6, 2)
    expected = loop(oracle.grad(total(by(MATRIX, product))))(x)
    assert_close(vmap(grad(total(by(sparse, product))))(x), expected)
    assert_close(grad(total(vmap(by(sparse, product))))(x), expected)
    second = oracle.hessian(total(by(MATRIX, product)))
    assert_close(vmap(jacrev(grad(total(by(sparse, product)))))(x), loop(second)(x))
    assert_close(vmap(hessian(total(by(sparse, product))))(x), loop(second)(x))


def test_tangents(sparse, product):
    x = rand(3, 6, 2)
    pushed = lambda jvp, f: lambda x: jvp(f, x, x.cos())[1]
    ours = lambda f, x, t: jvp(f, (x,), (t,))
    expected = loop(pushed(oracle.jvp, by(MATRIX, product)))(x)
    assert_close(vmap(pushed(ours, by(sparse, product)))(x), expected)
    assert_close(pushed(ours, vmap(by(sparse, product)))(x), expected)
    assert_close(
        vmap(jacfwd(by(sparse, product)))(x), loop(oracle.jacobian(by(MATRIX, product)))(x)
    )
    twice = pushed(ours, pushed(ours, by(sparse, product)))
    expected = loop(pushed(oracle.jvp, pushed(oracle.jvp, by(MATRIX, product))))(x)
    assert_close(vmap(twice)(x), expected)
    gradient = oracle.grad(total(pushed(oracle.jvp, by(MATRIX, product))))
    assert_close(vmap(grad(total(pushed(ours, by(sparse, product)))))(x), loop(gradient)(x))


@pytest.mark.parametrize("name", ["sparse.mm", "mm", "matmul"])
def test_gradient_by_the_sparse_factor(name):
    x, product = rand(3, 6, 2), PRODUCTS[name]

    def gradient(mapped):
        sparse = LAYOUTS["coo"].clone().requires_grad_()
        total(mapped(by(sparse, product)))(x).backward()
        return sparse.grad

    actual, expected = gradient(vmap), gradient(loop)
    assert actual.layout == expected.layout
    assert_close(actual.to_dense(), expected.to_dense())


def test_a_sparse_matrix_with_a_graph_in_per_sample_gradients():
    x = rand(3, 6, 2)

    def gradient(mapped, grad):
        sparse = LAYOUTS["coo"].clone().requires_grad_()
        mapped(grad(total(by(sparse, torch.mm))))(x).cos().sum().backward()
        return sparse.grad.to_dense()

    assert_close(gradient(vmap, grad), gradient(loop, oracle.grad))


def test_a_stack_of_sparse_matrices():
    stack, x = torch.stack([LAYOUTS["coo"], 2 * LAYOUTS["coo"]]), rand(2, 6, 3)
    assert_close(vmap(lambda s: s @ x[0])(stack), stack.to_dense() @ x[0])
    assert_close(vmap(lambda s, x: torch.mm(s, x))(stack, x), stack.to_dense() @ x)
    with pytest.raises(RuntimeError, match="SparseCsr can't be batched.*to_sparse_coo"):
        vmap(lambda s: s @ x[0])(torch.stack([MATRIX, MATRIX]).to_sparse_csr())
    assert_close(vmap(lambda s: x[0].t() @ s.t())(stack), x[0].t() @ stack.to_dense().mT)


INDICES = torch.tensor([[1, 2, 2, 0], [0, 0, 4, 0], [3, 1, 4, 1]])


def embedded(sparse, padding=None):
    return lambda weight, indices=INDICES[0]: F.embedding(
        indices, weight, sparse=sparse, padding_idx=padding
    ).exp()


def test_sparse_gradients_of_embeddings():
    """Where another derivative takes part they are dense: PyTorch has none of sparse ones."""
    ours, theirs, weight = embedded(sparse=True), embedded(sparse=False), rand(5, 3)
    push = lambda f: lambda x: jvp(f, (x,), (x.cos(),))[1]
    plain_push = lambda f: lambda x: oracle.jvp(f, x, x.cos())[1]

    assert grad(total(ours))(weight).is_sparse  # as in PyTorch, where it is all there is
    expected = oracle.grad(total(plain_push(theirs)))(weight)
    assert_close(grad(total(push(ours)))(weight), expected)
    expected = plain_push(oracle.grad(total(theirs)))(weight)
    assert_close(push(grad(total(ours)))(weight), expected)
    assert_close(hessian(total(ours))(weight), oracle.hessian(total(theirs))(weight))
    assert_close(jacfwd(ours)(weight), oracle.jacobian(theirs)(weight))


@pytest.mark.parametrize("padding", [None, 2])
def test_sparse_gradients_of_each_sample(padding):
    ours, theirs = embedded(True, padding), embedded(False, padding)
    weight, weights = rand(5, 3), rand(3, 5, 3)
    assert_close(jacrev(ours)(weight), oracle.jacobian(theirs)(weight))
    expected = loop(oracle.grad(total(theirs)))(weights)
    assert_close(vmap(grad(total(ours)))(weights), expected)
    shared = vmap(grad(total(ours)), (None, 0))(weight, INDICES)
    expected = loop(oracle.grad(total(theirs)), (None, 0))(weight, INDICES)
    assert_close(shared, expected)


def test_a_tangent_that_only_the_cotangent_of_an_embedding_has():
    weight = rand(5, 3)

    def gradient(scale, sparse, grad):
        embedded = lambda weight: scale.sin() * F.embedding(INDICES[0], weight, sparse=sparse)
        return grad(total(embedded))(weight)

    scale = rand()
    _, actual = jvp(lambda s: gradient(s, True, grad), (scale,), (torch.ones_like(scale),))
    _, expected = oracle.jvp(
        lambda s: gradient(s, False, oracle.grad), scale, torch.ones_like(scale)
    )
    assert_close(actual, expected)
