"""A matrix that all samples share, times a vector of each, is one product of two matrices."""

from torch.utils._python_dispatch import TorchDispatchMode

from functorch_ext import grad, vmap
from test.oracle import assert_close, loop, rand


class Seen(TorchDispatchMode):
    """The operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


def test_no_product_of_stacks():
    matrix, vectors = rand(5, 3), rand(4, 3)
    around = grad(lambda x: vmap(lambda x: matrix @ x)(x).square().sum())
    inside = vmap(grad(lambda x: (matrix @ x).square().sum()))
    with Seen() as seen:
        values = vmap(lambda x: matrix @ x)(vectors)
        gradients = around(vectors)
    assert "aten.mm" in seen.names and "aten.bmm" not in seen.names
    assert_close(values, loop(lambda x: matrix @ x)(vectors))
    assert_close(gradients, 2 * vectors @ matrix.T @ matrix)
    assert_close(inside(vectors), gradients)
