"""make_fx through the transforms: plain operators, right for other inputs and, symbolic, sizes."""

import expecttest
import pytest
import torch
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from functorch_ext import (
    functionalize,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    vjp,
    vmap,
)
from functorch_ext._pytree import leaves_of
from functorch_ext._releases import since

WEIGHT = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))


def matrix(x):
    return torch.tanh(x @ WEIGHT).sin() * x * WEIGHT[0]


def number(x):
    return matrix(x).sum()


def layer(x):
    return torch.nn.functional.linear(x, WEIGHT, x).pow(2).sum()


def pulled_back(x):
    output, pullback = vjp(matrix, x)
    return pullback(output)


def of_two(transform, func):
    return lambda x: transform(lambda a, b: func(a * b), (0, 1))(x, x.cos())


# Of each: the function, and the rank of its argument, whose first dimension of two may vary.
PROGRAMS = {
    "vmap": (vmap(matrix), 2),
    "vmap(vmap)": (lambda x: vmap(lambda a: vmap(lambda b: (a * b).sum())(x))(x), 2),
    "vmap(chunk_size)": (vmap(matrix, chunk_size=2), 2),
    "vmap(axis_size)": (lambda x: vmap(lambda: x.sin(), axis_size=x.shape[0])(), 2),
    "grad": (grad(number), 2),
    "grad of a vector": (grad(number), 1),
    "grad_and_value": (grad_and_value(number), 2),
    "vmap(grad)": (vmap(grad(number)), 2),
    "vmap(grad(linear))": (vmap(grad(layer)), 2),
    "grad(vmap)": (grad(lambda x: vmap(number)(x).prod()), 2),
    "vjp": (pulled_back, 2),
    "jvp": (lambda x: jvp(matrix, (x,), (x.cos(),)), 2),
    "jvp(grad)": (lambda x: jvp(grad(number), (x,), (x.cos(),)), 2),
    "jvp(jvp)": (lambda x: jvp(lambda y: jvp(matrix, (y,), (y,))[1], (x,), (x.sin(),)), 2),
    "linearize": (lambda x: linearize(matrix, x)[1](x.cos()), 2),
    "jacrev": (jacrev(matrix), 2),
    "jacrev by two": (of_two(jacrev, matrix), 2),
    "jacrev(chunk_size)": (jacrev(matrix, chunk_size=3), 2),
    "vmap(jacrev)": (vmap(jacrev(matrix)), 2),
    "jacfwd": (jacfwd(matrix), 2),
    "jacfwd by two": (of_two(jacfwd, matrix), 2),
    "vmap(jacfwd)": (vmap(jacfwd(matrix)), 2),
    "jacfwd(vmap(grad))": (jacfwd(vmap(grad(number))), 2),
    "hessian": (hessian(number), 2),
    "hessian by two": (of_two(hessian, number), 2),
    "vmap(hessian)": (vmap(hessian(number)), 2),
    "functionalize(grad)": (functionalize(lambda x: x.clone().mul_(2) + grad(number)(x)), 2),
}
TABLE = {"decomposition_table": core_aten_decompositions()}
SYMBOLIC = {"tracing_mode": "symbolic"}
BEFORE = {"pre_dispatch": True}
MODES = {
    "real": {},
    "fake": {"tracing_mode": "fake"},
    "symbolic": SYMBOLIC,
    "pre_dispatch": BEFORE,
    "decomposed": TABLE,
    "pre_dispatch symbolic": {**BEFORE, **SYMBOLIC},
    "decomposed symbolic": {**TABLE, **SYMBOLIC},
}


def rand(rank, rows=3):
    return torch.randn(rows, 4, dtype=torch.float64).float() if rank == 2 else torch.randn(4)


@pytest.mark.parametrize(
    "mode", [pytest.param(m, marks=pytest.mark.slow) if " " in m else m for m in MODES]
)
@pytest.mark.parametrize("name", PROGRAMS)
def test_traced_function_is_right_for_other_inputs(name, mode):
    if "symbolic" in mode and name in ("vmap(jacfwd)", "vmap(hessian)") and not since((2, 13)):
        pytest.skip("PyTorch's matmul takes no symbolic sizes here")
    function, rank = PROGRAMS[name]
    traced = make_fx(function, _allow_non_fake_inputs=True, **MODES[mode])(rand(rank))
    inputs = [rand(rank)] + ([rand(rank, 5), rand(rank, 2)] if "symbolic" in mode else [])
    for x in inputs if rank == 2 else inputs[:1]:
        torch.testing.assert_close(leaves_of(traced(x)), leaves_of(function(x)))
    for node in traced.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            assert node.target.namespace in ("aten", "prims"), node.target


def code_of(function, *args, **options):
    graph = make_fx(function, **options)(*args)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph.code.strip()


class TestGraphs(expecttest.TestCase):
    def test_vmap_of_grad_keeps_the_batch_size_symbolic(self):
        code = code_of(vmap(grad(lambda x: x.sin().sum())), torch.randn(3, 4), **SYMBOLIC)
        self.assertExpectedInline(
            code,
            """\
def forward(self, x_1):
    ones = torch.ops.aten.ones.default([], dtype = torch.float32, layout = torch.strided, device = device(type='cpu'))
    sym_size_int_1 = torch.ops.aten.sym_size.int(x_1, 1)
    expand = torch.ops.aten.expand.default(ones, [sym_size_int_1]);  ones = sym_size_int_1 = None
    cos = torch.ops.aten.cos.default(x_1);  x_1 = None
    mul = torch.ops.aten.mul.Tensor(expand, cos);  expand = cos = None
    return mul""",
        )

    def test_jvp_asks_no_questions_of_tangents(self):
        code = code_of(lambda x: jvp(torch.sin, (x,), (x,))[1], torch.randn(3))
        self.assertExpectedInline(
            code,
            """\
def forward(self, x_1):
    cos = torch.ops.aten.cos.default(x_1)
    mul = torch.ops.aten.mul.Tensor(x_1, cos);  x_1 = cos = None
    return mul""",
        )

    def test_grad_before_dispatch_is_what_it_is_after(self):
        function = grad(lambda x: x.exp().sum())
        code = code_of(lambda x: function(x) + 1, torch.randn(3), **BEFORE)
        self.assertExpectedInline(
            code,
            """\
def forward(self, x_1):
    exp = torch.ops.aten.exp.default(x_1);  x_1 = None
    ones = torch.ops.aten.ones.default([], dtype = torch.float32, layout = torch.strided, device = device(type='cpu'))
    expand = torch.ops.aten.expand.default(ones, [3]);  ones = None
    mul = torch.ops.aten.mul.Tensor(expand, exp);  expand = exp = None
    add = torch.ops.aten.add.Tensor(mul, 1);  mul = None
    return add""",
        )


def test_what_a_program_makes_in_a_fake_trace_is_its_own():
    def filled(x):
        out = torch.zeros(4)
        out[1:3] = x
        return out

    traced = make_fx(vmap(filled), tracing_mode="fake")(torch.randn(3, 2))
    x = torch.randn(3, 2)
    torch.testing.assert_close(traced(x), vmap(filled)(x))


def test_modes_are_back_after_an_error():
    def fails(x):
        raise ValueError("of the program")

    with pytest.raises(ValueError, match="of the program"):
        make_fx(vmap(fails), pre_dispatch=True)(torch.randn(3))
    traced = make_fx(vmap(torch.sin), pre_dispatch=True)(torch.randn(3))
    torch.testing.assert_close(traced(torch.ones(3)), torch.ones(3).sin())
