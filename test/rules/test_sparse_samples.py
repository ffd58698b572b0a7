"""Sparse matrices made inside vmap, one for each sample."""

import pytest
import torch

from functorch_ext import grad, hvp, jacrev, vmap
from test import oracle
from test.oracle import assert_close, loop, rand

pytestmark = pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")

PRODUCTS = {
    "sparse.mm": lambda s, x: torch.sparse.mm(s, x),
    "mm": lambda s, x: torch.mm(s, x),
    "matmul": lambda s, x: s @ x,
    "matmul with a vector": lambda s, x: s @ x[:, 0],
    "from the right": lambda s, x: x.t() @ s.t(),
    "sparse.mm from the right": lambda s, x: torch.sparse.mm(x.t(), s.t()),
}
POSITIONS = torch.tensor([[0, 3, 3, 1], [2, 0, 5, 4]])


def made(values, positions=POSITIONS):
    return torch.sparse_coo_tensor(positions, values, (4, 6), check_invariants=False)


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.parametrize("of", ["values", "positions", "both"])
def test_products(product, of):
    values = rand(3, 4) if of != "positions" else rand(4)
    positions = POSITIONS
    if of != "values":
        positions = torch.stack([POSITIONS, POSITIONS.flip(1), (POSITIONS + 1) % 4])
    in_dims = (None if of == "positions" else 0, None if of == "values" else 0)
    x = rand(6, 2)

    def ours(values, positions):
        return product(made(values, positions), x)

    def plain(values, positions):
        return product(made(values, positions).to_dense(), x)

    assert_close(vmap(ours, in_dims)(values, positions), loop(plain, in_dims)(values, positions))


def test_what_else_such_a_matrix_does():
    values, x = rand(3, 4), rand(3, 6, 2)
    dense = torch.stack([made(v).to_dense() for v in values])
    assert_close(vmap(lambda v: made(v).to_dense())(values), dense)
    assert_close(vmap(lambda v, x: made(v) @ x)(values, x), dense @ x)
    assert_close(vmap(vmap(lambda v, x: made(v) @ x))(values[None], x[None]), (dense @ x)[None])
    assert vmap(lambda v: made(v) @ x[0])(rand(0, 4)).shape == (0, 4, 2)
    assert_close(vmap(lambda v: made(v).coalesce() @ x[0])(values), dense @ x[0])
    with pytest.raises(RuntimeError, match="product of two sparse matrices.*to_dense"):
        vmap(lambda v: torch.mm(made(v), made(v).t()))(values)


def test_layouts_that_do_not_stack():
    rows, columns = torch.tensor([0, 1, 3]), torch.tensor([2, 0, 2])
    with pytest.raises(RuntimeError, match=r"layout SparseCsr.*Make a sparse COO tensor"):
        vmap(lambda v: torch.sparse_csr_tensor(rows, columns, v, (2, 3)))(rand(4, 3))


def test_gradients_by_the_values_raise():
    with pytest.raises(RuntimeError, match="gradient needs, have no batching rule. Fill a dense"):
        vmap(grad(lambda v, x: (made(v) @ x).sum()))(rand(3, 4), rand(3, 6, 2))


@pytest.mark.parametrize("of", ["sparse.mm", "to_dense"])
def test_second_derivatives_by_the_values_raise(of):
    """PyTorch takes them for zero."""
    x = rand(6, 2)
    product = lambda s: torch.sparse.mm(s, x) if of == "sparse.mm" else s.to_dense() @ x
    f = lambda v: (product(made(v)) ** 2).sum()
    dense = lambda v: ((made(v).to_dense() @ x) ** 2).sum()
    values = rand(4)
    assert_close(grad(f)(values), oracle.grad(dense)(values))
    for second in (grad(lambda v: grad(f)(v).sum()), jacrev(grad(f)), lambda v: hvp(f)(v, v)):
        with pytest.raises(RuntimeError, match="no second derivative by them"):
            second(values)
