"""What the passes make of graphs."""

import expecttest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from functorch_ext import grad, hessian, jit, vmap
from functorch_ext._jit.passes.expanded import clone_expanded


def text(function, *args):
    return jit(function, backend="graph").lower(*args).as_text()


class TestGraphs(expecttest.TestCase):
    def test_gradient(self):
        self.assertExpectedInline(
            text(grad(lambda x: (x.sin() * x).sum()), torch.randn(3)),
            """\
def forward(self, arg0_1):
    sin = torch.ops.aten.sin.default(arg0_1)
    cos = torch.ops.aten.cos.default(arg0_1)
    mul_3 = torch.ops.aten.mul.Tensor(arg0_1, cos);  arg0_1 = cos = None
    add = torch.ops.aten.add.Tensor(sin, mul_3);  sin = mul_3 = None
    return [add]""",
        )

    def test_per_sample_gradient(self):
        loss = lambda w, x: (w * x).sum().exp()
        function = vmap(grad(loss), (None, 0))
        self.assertExpectedInline(
            text(function, torch.randn(3), torch.randn(4, 3)),
            """\
def forward(self, arg0_1, arg1_1):
    mul = torch.ops.aten.mul.Tensor(arg0_1, arg1_1);  arg0_1 = None
    sum_1 = torch.ops.aten.sum.dim_IntList(mul, [1]);  mul = None
    exp = torch.ops.aten.exp.default(sum_1);  sum_1 = None
    unsqueeze = torch.ops.aten.unsqueeze.default(exp, 1);  exp = None
    expand = torch.ops.aten.expand.default(unsqueeze, [4, 3]);  unsqueeze = None
    mul_2 = torch.ops.aten.mul.Tensor(expand, arg1_1);  expand = arg1_1 = None
    return [mul_2]""",
        )

    def test_with_backward_pass_and_closed_over_weight(self):
        weight = torch.randn(3, requires_grad=True)
        self.assertExpectedInline(
            text(lambda x: (x * weight).exp(), torch.randn(3)),
            """\
def forward(self, arg0_1, closed_over_0, cotangent_0):
    mul = torch.ops.aten.mul.Tensor(arg0_1, closed_over_0);  closed_over_0 = None
    exp = torch.ops.aten.exp.default(mul);  mul = None
    mul_1 = torch.ops.aten.mul.Tensor(cotangent_0, exp);  cotangent_0 = None
    mul_2 = torch.ops.aten.mul.Tensor(mul_1, arg0_1);  mul_1 = arg0_1 = None
    return [exp, mul_2]""",
        )

    def test_common_subexpressions(self):
        self.assertExpectedInline(
            text(lambda x: x.sin() + x.sin() * x.sin(), torch.randn(3)),
            """\
def forward(self, arg0_1):
    sin = torch.ops.aten.sin.default(arg0_1);  arg0_1 = None
    mul = torch.ops.aten.mul.Tensor(sin, sin)
    add = torch.ops.aten.add.Tensor(sin, mul);  sin = mul = None
    return [add]""",
        )

    def test_writes(self):
        self.assertExpectedInline(
            text(lambda x: x.add_(1).mul_(2), torch.randn(3)),
            """\
def forward(self, arg0_1):
    add = torch.ops.aten.add.Tensor(arg0_1, 1)
    mul = torch.ops.aten.mul.Tensor(add, 2);  add = None
    copy_ = torch.ops.aten.copy_.default(arg0_1, mul);  arg0_1 = copy_ = None
    return [mul]""",
        )


def test_random_numbers_and_different_numbers_are_not_merged():
    code = text(lambda x: (torch.rand(3) - torch.rand(3), x * 1, x * 1.0, x * True), torch.ones(3))
    assert code.count("aten.rand.default") == 2 and code.count("aten.mul") == 3


def test_hessian_has_no_aliases_and_no_dead_operators():
    lowered = jit(hessian(lambda x: (x.sin() * x).sum()), backend="graph").lower(torch.randn(3))
    assert not {"aten.alias.default", "aten.detach.default"} & {*lowered.operators()}
    nodes = lowered.graph.graph.nodes
    assert all(n.users or n.op in ("output", "placeholder") for n in nodes)


def test_expanded_memory_is_cloned_before_it_is_added_to():
    def function(index, values):
        return torch.index_put(torch.zeros(()).expand(4, 3), (index,), values, accumulate=True)

    args = torch.tensor([0, 2, 2]), torch.randn(3, 3)
    graph = make_fx(function, tracing_mode="fake")(*args)
    clone_expanded(graph.graph)
    graph.recompile()
    (put,) = [n for n in graph.graph.nodes if n.target is torch.ops.aten.index_put.default]
    assert put.args[0].target is torch.ops.aten.clone.default
    torch.testing.assert_close(graph(*args), function(*args))


def test_sums_of_one_number_are_left_out_unless_memory_would_be_shared():
    sums = lambda f, *args: (
        jit(f, backend="graph").lower(*args).operators().get("aten.sum.dim_IntList", 0)
    )
    x = torch.randn(4, 1, 3)
    assert sums(lambda x: x.sin().sum(1, keepdim=True).exp(), x) == 0
    assert sums(lambda x: x.sin().sum(1, keepdim=True), x) == 0
    assert sums(lambda x: x.sin().sum((0, 1), keepdim=True), x) == 1
    assert sums(lambda x: x.bool().sum(1, keepdim=True), x) == 1  # another dtype
    for function in (
        lambda x: (x.sum(1, keepdim=True), x),
        lambda x: (x.view(4, 3, 1).sum(-1, keepdim=True).view(3, 4), x),
        lambda x: (x.sin().sum(1, keepdim=True), x.sin()),
        lambda x: [(y := x.sin()), y.sum(1, keepdim=True), y.view(4, 3, 1).sum(2, keepdim=True)],
        lambda x: [x.sin().sum(1, keepdim=True), x.sin().sum(1, keepdim=True), x],
    ):
        results = jit(function, backend="graph")(x)
        torch.testing.assert_close(list(results), list(function(x)))
        places = {each.untyped_storage().data_ptr() for each in (*results, x)}
        assert len(places) == len({id(each) for each in (*function(x), x)})
