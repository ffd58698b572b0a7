"""``explain`` against programs whose operators are counted by hand."""

import warnings

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

import functorch_ext
from functorch_ext import explain, functionalize, grad, hessian, jvp, vjp, vmap
from test.oracle import rand


def called(report, backward=False):
    """(name, way, level, count) of each operator that the program called, in order."""
    return [
        (call.name, call.way, call.level, call.count)
        for call in report.calls
        if call.backward == backward
    ]


def test_a_plain_program():
    def f(x):
        y = x * 2
        for _ in range(3):
            y = y.sin()
        return y + x

    report = explain(f)(rand(4))
    assert called(report) == [
        ("mul.Tensor", "kernel", "plain", 1),
        ("sin", "kernel", "plain", 3),
        ("add.Tensor", "kernel", "plain", 1),
    ]
    assert all(call.transforms == () and call.plane == 0 for call in report.walk())


def test_a_vmap():
    w = rand(3, 2)

    def f(x):
        return torch.tanh(x @ w).sum()

    report = explain(vmap(f))(rand(8, 3))
    level = "vmap(level 1, 8 samples)"
    assert called(report) == [
        ("matmul", "rule", level, 1),
        ("tanh", "rule", level, 1),
        ("sum", "rule", level, 1),
    ]
    assert [call.family for call in report.calls] == ["matmul", "pointwise", "reductions"]
    assert all(call.transforms == (level,) for call in report.walk())
    (below,) = report.calls[1].calls
    assert (below.name, below.way, below.level, below.count) == ("tanh", "kernel", "plain", 1)


def test_what_is_the_same_for_all_samples_runs_once():
    def f(x):
        zeros = torch.zeros(3, dtype=torch.float64)
        return x + zeros.exp()

    report = explain(vmap(f))(rand(8, 3))
    assert ("exp", "once", "vmap(level 1, 8 samples)", 1) in called(report)


def test_nested_vmaps_have_a_row_for_each_plane():
    report = explain(vmap(vmap(torch.mul), in_dims=(0, 0)))(rand(5, 3), rand(5, 3))
    (call,) = report.calls
    planes = [(each.name, each.plane, each.level, each.way) for each in call.walk()]
    assert planes == [
        ("mul.Tensor", 2, "vmap(level 2, 3 samples)", "rule"),
        ("mul.Tensor", 1, "vmap(level 1, 5 samples)", "rule"),
        ("mul.Tensor", 0, "plain", "kernel"),
    ]
    assert call.transforms == ("vmap(level 1, 5 samples)", "vmap(level 2, 3 samples)")


def test_a_gradient_has_a_backward_pass_at_the_lines_of_the_forward():
    def f(x):
        y = x.sin()
        return y.sum()

    report = explain(grad(f))(rand(4))
    assert called(report)[:2] == [("sin", "kernel", "plain", 1), ("sum", "kernel", "plain", 1)]
    backward = {call.name: call for call in report.calls if call.backward}
    assert backward.keys() == {"expand", "cos", "mul.Tensor"}
    assert backward["expand"].place.code == "y.sum()"
    assert backward["cos"].place.code == backward["mul.Tensor"].place.code == "x.sin()"
    assert all(call.transforms == ("grad",) for call in report.walk())


def test_vmap_of_grad_of_vmap():
    def inner(w, x):
        return (w * x).sin().sum()

    def outer(w, xs):
        return vmap(inner, in_dims=(None, 0))(w, xs).sum()

    report = explain(vmap(grad(outer), in_dims=(None, 0)))(rand(3), rand(5, 4, 3))
    first, second = "vmap(level 1, 5 samples)", "vmap(level 2, 4 samples)"
    forward = [call for call in report.calls if not call.backward and call.plane]
    found = [(call.name, call.plane, call.transforms) for call in forward]
    assert found == [
        ("mul.Tensor", 2, (first, "grad", second)),
        ("sin", 2, (first, "grad", second)),
        ("sum", 2, (first, "grad", second)),
        ("sum", 1, (first, "grad")),
    ]
    backward = [call for call in report.calls if call.backward]
    assert {call.level for call in backward} == {first}  # level 2 has returned
    assert all(call.transforms == (first, "grad") for call in backward)
    assert {call.place.code for call in backward} == {
        "w * x",
        "(w * x).sin()",
        "(w * x).sin().sum()",
        "vmap(inner, in_dims=(None, 0))(w, xs).sum()",
    }


def test_jvp_and_functionalize():
    report = explain(lambda x: jvp(torch.sin, (x,), (x,)))(rand(3))
    (sin,) = [call for call in report.calls if call.name == "sin"]
    assert sin.transforms == ("jvp",) and sin.plane == 0

    def written(x):
        y = x.clone()
        y.mul_(2)
        return y

    report = explain(functionalize(written))(rand(3))
    level = "functionalize(level 1)"
    assert called(report) == [
        ("clone", "functionalized", level, 1),
        ("mul_.Tensor", "functionalized", level, 1),
    ]
    (below,) = report.calls[1].calls
    assert below.name == "mul.Tensor"  # without a write
    report = explain(vmap(functionalize(written)))(rand(8, 3))
    planes = [each.level for each in report.calls[1].walk()]
    assert planes == ["functionalize(level 2)", "vmap(level 1, 8 samples)", "plain"]


def test_a_hessian_and_a_pullback_are_named():
    report = explain(hessian(lambda x: (x**3).sum()))(rand(4))
    stacks = {call.transforms for call in report.walk()}
    assert ("hessian(level 1, 4 vectors)",) in stacks
    _, pullback = vjp(torch.sin, rand(4))
    report = explain(pullback)(rand(4))
    assert {call.transforms for call in report.walk()} == {("vjp's pullback",)}


def test_a_layer_has_the_line_that_calls_it():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())

    def f(x):
        return model(x)

    report = explain(vmap(f))(torch.randn(8, 3))
    assert {call.place.code for call in report.walk()} == {"model(x)"}
    assert [call.name for call in report.calls] == ["linear", "relu"]


@pytest.fixture
def unruly():
    """An operator without a batching rule."""
    with torch.library._scoped_library("inspecting", "FRAGMENT") as library:
        library.define("unruly(Tensor x) -> Tensor")
        library.impl("unruly", lambda x: x * 2, "CPU")
        yield torch.ops.inspecting.unruly


def test_a_loop_is_recognised_and_advised_on(unruly):
    def f(x):
        return unruly(x.sin()).cos()

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the report takes the warning's place
        report = explain(vmap(f))(rand(8, 3))
    (loop,) = report.loops
    assert (loop.operator, loop.way, loop.count) == ("inspecting::unruly", "loop", 1)
    assert loop.place.code == "unruly(x.sin())"
    (each,) = [call for call in loop.calls if call.operator == loop.operator]
    assert (each.count, each.plane) == (8, 0)
    assert 'register_batching_rule("inspecting::unruly", rule)' in loop.advice
    assert "1 loop over samples" in str(report)
    assert [way for _, way, _, _ in called(report)] == ["rule", "loop", "rule"]


def test_a_loop_inside_two_vmaps(unruly):
    report = explain(vmap(vmap(unruly)))(rand(5, 3, 2))
    found = [(call.level, call.count) for call in report.loops]
    assert sorted(found) == [("vmap(level 1, 5 samples)", 3), ("vmap(level 2, 3 samples)", 1)]


def test_a_rule_in_python_ends_the_loop():
    @torch.library.custom_op("inspecting::ruled", mutates_args=())
    def ruled(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @functorch_ext.register_batching_rule(ruled)
    def rule(info, in_dims, x):
        return ruled(x), in_dims[0]

    report = explain(vmap(ruled))(rand(8, 3))
    assert not report.loops
    (call,) = report.calls
    # torch 2.14 tells observers of the parts of an operator defined in Python, and not of itself.
    is_told = call.operator == "inspecting::ruled"
    assert call.way == ("python rule" if is_told else "kernel")
    assert is_told or not torch.__version__.startswith("2.13")


def test_a_custom_function_that_loops():
    class Numpy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.from_numpy(x.detach().numpy() * 2)

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    report = explain(vmap(Numpy.apply))(rand(8, 3))
    (loop,) = report.loops
    assert loop.operator == "forward of Numpy"
    assert "Give the function a vmap staticmethod" in loop.advice


def test_around_torch_func_and_inside():
    report = explain(torch.func.vmap(grad(lambda x: x.sin())))(rand(3))
    stacks = {call.transforms for call in report.calls}
    assert stacks == {("torch.func.vmap", "grad(level 1)")}
    report = explain(vmap(torch.func.grad(lambda x: x.sin())))(rand(3))
    sin = report.calls[0]
    assert sin.transforms == ("vmap(level 1, 3 samples)", "torch.func.grad")
    assert [(call.way, call.plane) for call in sin.walk()] == [
        ("torch.func", 0),
        ("rule", 1),
        ("kernel", 0),
    ]


def test_a_compiled_function_has_the_line_of_its_call():
    compiled = functorch_ext.jit(vmap(torch.sin), backend="graph")
    x = rand(3)
    compiled(x)
    (call,) = explain(lambda: compiled(x))().calls
    assert (call.name, call.place.code) == ("sin", "compiled(x)")


def test_a_checkpoint_is_computed_again_in_the_backward_pass():
    def f(x):
        return torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False).sum()

    report = explain(vmap(grad(f)))(rand(8, 3))
    where = [call.backward for call in report.calls if call.name == "sin"]
    assert where == [False, True]


def test_a_gradient_by_a_tensor_from_outside_says_what_to_do():
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def f(x):
        return torch.autograd.grad((x * w).sum(), w)[0]

    report = explain(vmap(f))(rand(8, 3))
    (loop,) = report.loops
    assert loop.operator == "torch.autograd.grad" and loop.place.code.startswith("torch.autograd")
    assert ". torch.autograd.grad inside functorch_ext.vmap" in str(report)
