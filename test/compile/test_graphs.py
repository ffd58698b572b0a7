"""What the compiler's backend gets of three programs, as docs/compile.md shows it."""

import re
from pathlib import Path

import expecttest
import torch
from torch._dynamo.backends.common import aot_autograd

from functorch_ext import grad, hessian, jvp, vmap

PAGE = Path(__file__).parents[2] / "docs" / "compile.md"


def loss(w, x, y):
    return (x @ w - y).square()


def product_with_a_hessian(x, v):
    return jvp(grad(lambda x: x.exp().sum()), (x,), (v,))[1]


def graph_of(function, *args):
    """Without the remarks on when a value is freed."""
    graphs = []

    def keep(module, _):
        graphs.append(re.sub(r";  .* = None", "", module.code.strip()))
        return module.forward

    torch.compiler.reset()
    compiled = torch.compile(function, backend=aot_autograd(fw_compiler=keep), fullgraph=True)
    torch.testing.assert_close(compiled(*args), function(*args))
    (graph,) = graphs
    assert graph in PAGE.read_text(), f"docs/compile.md doesn't show\n{graph}"
    return graph


class TestGraphs(expecttest.TestCase):
    def test_per_sample_gradients(self):
        gradients = vmap(grad(loss), (None, 0, 0))
        self.assertExpectedInline(
            graph_of(gradients, torch.randn(4), torch.randn(3, 4), torch.randn(3)),
            """\
def forward(self, arg0_1, arg1_1, arg2_1):
    mv = torch.ops.aten.mv.default(arg1_1, arg0_1)
    sub = torch.ops.aten.sub.Tensor(mv, arg2_1)
    ones = torch.ops.aten.ones.default([], dtype = torch.float32, layout = torch.strided, device = device(type='cpu'))
    pow_2 = torch.ops.aten.pow.Tensor_Scalar(sub, 1.0)
    mul = torch.ops.aten.mul.Scalar(pow_2, 2.0)
    mul_1 = torch.ops.aten.mul.Tensor(ones, mul)
    unsqueeze = torch.ops.aten.unsqueeze.default(mul_1, 1)
    mul_2 = torch.ops.aten.mul.Tensor(unsqueeze, arg1_1)
    return (mul_2,)""",
        )

    def test_product_with_a_hessian(self):
        self.assertExpectedInline(
            graph_of(product_with_a_hessian, torch.randn(4), torch.randn(4)),
            """\
def forward(self, arg0_1, arg1_1):
    exp = torch.ops.aten.exp.default(arg0_1)
    mul = torch.ops.aten.mul.Tensor(arg1_1, exp)
    ones = torch.ops.aten.ones.default([], dtype = torch.float32, layout = torch.strided, device = device(type='cpu'))
    expand = torch.ops.aten.expand.default(ones, [4])
    mul_2 = torch.ops.aten.mul.Tensor(mul, expand)
    clone = torch.ops.aten.clone.default(mul_2)
    return (clone,)""",
        )

    def test_hessian(self):
        self.assertExpectedInline(
            graph_of(hessian(lambda x: x.sin().sum()), torch.randn(4)),
            """\
def forward(self, arg0_1):
    eye = torch.ops.aten.eye.default(4, dtype = torch.float32, device = device(type='cpu'))
    ones = torch.ops.aten.ones.default([], dtype = torch.float32, layout = torch.strided, device = device(type='cpu'))
    expand = torch.ops.aten.expand.default(ones, [4])
    sin_1 = torch.ops.aten.sin.default(arg0_1)
    neg = torch.ops.aten.neg.default(sin_1)
    mul_1 = torch.ops.aten.mul.Tensor(eye, neg)
    mul_3 = torch.ops.aten.mul.Tensor(mul_1, expand)
    clone = torch.ops.aten.clone.default(mul_3)
    permute = torch.ops.aten.permute.default(clone, [1, 0])
    return (permute,)""",
        )
