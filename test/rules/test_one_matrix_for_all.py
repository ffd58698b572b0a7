"""A matrix that all samples share, times a vector of each, is one product of two matrices."""

from functorch_ext import grad, vmap
from test.modes import Seen
from test.oracle import assert_close, loop, rand


def test_no_product_of_stacks():
    matrix, vectors = rand(5, 3), rand(4, 3)
    around = grad(lambda x: vmap(lambda x: matrix @ x)(x).square().sum())
    inside = vmap(grad(lambda x: (matrix @ x).square().sum()))
    with Seen() as seen:
        values = vmap(lambda x: matrix @ x)(vectors)
        gradients = around(vectors)
    assert "mm" in seen.names and "bmm" not in seen.names
    assert_close(values, loop(lambda x: matrix @ x)(vectors))
    assert_close(gradients, 2 * vectors @ matrix.T @ matrix)
    assert_close(inside(vectors), gradients)
