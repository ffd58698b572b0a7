"""``torch.compile`` and our transforms give what eager gives, or an error where that can't be."""

import subprocess
import sys

import pytest
import torch
from torch.utils import _pytree as pytree

import functorch_ext
from test.compile.corpus import THEMES, all_programs, judge
from test.compile.count import PAGE

# One of each kind, for the default tests: a compilation takes a second or so.
_FEW = (
    "vmap-closure_over_computed",
    "forward-jvp",
    "jacobians-hessian_made_before",
    "nested-graph_break_inside",
    "containers-dataclass_mapped",
    "training-private_step",
    "around-jvp_used_before",
    "around-jacrev_of_grad",
    "around-module_called_before",
)


def _programs():
    return [
        pytest.param(p, id=p.name, marks=() if p.name in _FEW else pytest.mark.slow)
        for p in all_programs()
    ]


@pytest.mark.parametrize("program", _programs())
def test_is_as_eager(program):
    assert judge(program, functorch_ext, backend="aot_eager") == "right"


# What Dynamo doesn't make one graph of, by reason.
_NOT_ONE_GRAPH = (
    *("backward", "differentiated_outside", "graph_break", "across_break", "print_inside"),
    *("gradient_of_result", "local_autograd_inside", "raises_as_eager", "optimizer"),
    "stacked_inside",
)


@pytest.mark.slow
@pytest.mark.parametrize("program", _programs())
def test_is_one_graph(program):
    if any(reason in program.name for reason in _NOT_ONE_GRAPH):
        pytest.skip("not one graph")
    assert judge(program, functorch_ext, backend="eager", fullgraph=True) == "right"


def test_several_are_one_graph():
    x, w = torch.randn(3, 4), torch.randn(4)

    @torch.compile(backend="eager", fullgraph=True)
    def compiled(x, w):
        scaled = w * 2
        samples = functorch_ext.vmap(functorch_ext.grad(lambda x: (scaled * x.sin()).sum()))(x)
        out, pullback = functorch_ext.vjp(torch.sin, w)
        pushed = functorch_ext.jvp(torch.cos, (w,), (out,))[1]
        return samples, pullback(pushed)[0], functorch_ext.hessian(lambda w: w.prod())(w)

    samples, pulled, second = compiled(x, w)
    assert torch.allclose(samples, 2 * w * x.cos())
    assert torch.allclose(pulled, -w.sin() * w.sin() * w.cos())
    assert torch.allclose(second, torch.func.hessian(lambda w: w.prod())(w))


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("program", all_programs(), ids=lambda program: program.name)
def test_inductor_is_as_eager(program, dynamic):
    options = {"fallback_random": True}
    assert judge(program, functorch_ext, dynamic=dynamic, options=options) == "right"


def test_numbers_among_the_options_are_fixed_where_all_else_varies():
    mapped = functorch_ext.vmap(lambda x: x.sin().sum(0), in_dims=1, out_dims=0, chunk_size=2)
    compiled = torch.compile(mapped, backend="eager", dynamic=True, fullgraph=True)
    for count in (2, 3, 5):
        x = torch.randn(4, count)
        torch.testing.assert_close(compiled(x), mapped(x))


def test_number_of_samples_varies_without_compiling_again():
    def inner(x, y):
        return functorch_ext.vmap(lambda: x.sin() * y, axis_size=x.shape[0])()

    function = lambda x: functorch_ext.vmap(lambda y: inner(x, y))(x)
    compiled = torch.compile(function, backend="aot_eager", dynamic=True, fullgraph=True)
    compiled(torch.randn(3, 4))
    with torch.compiler.set_stance("fail_on_recompile"):
        for count in (5, 4):
            x = torch.randn(count, 4)
            torch.testing.assert_close(compiled(x), function(x))


def test_container_is_compiled_before_it_is_filled():
    class Filled:
        def __init__(self, x):
            torch._dynamo.graph_break()  # this frame is compiled by itself
            self.x = x.sin()

    pytree.register_pytree_node(Filled, lambda f: ([f.x], None), lambda x, _: Filled(x[0]))
    compiled = torch.compile(lambda x: Filled(x).x + 1, backend="eager")
    x = torch.randn(3)
    torch.testing.assert_close(compiled(x), x.sin() + 1)


@pytest.mark.parametrize("remove", ["mutations", "mutations_and_views"])
def test_functionalize_made_before_is_one_graph(remove):
    def function(x):
        y = x.clone()
        y.view(-1)[1:3].mul_(2)
        return functorch_ext.jvp(lambda y: y.clone().mul_(3).sin(), (y,), (x,))

    x = torch.randn(3, 4)
    functional = functorch_ext.functionalize(function, remove=remove)
    compiled = torch.compile(functional, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), function(x))


def test_fullgraph_function_inside_a_transform():
    function = torch.compile(torch.sin, backend="eager", fullgraph=True)
    x = torch.randn(3)
    assert torch.equal(functorch_ext.vmap(function)(x), x.sin())
    assert torch.equal(function(x), x.sin())


def test_skipped_frames_stay_skipped_after_a_reset():
    mapped = functorch_ext.vmap(lambda x: x.item() if x.dim() else x.sin())
    for _ in range(2):
        x = torch.randn(3)
        compiled = torch.compile(lambda x: mapped(x) + 1, backend="eager")
        assert torch.allclose(compiled(x), x.sin() + 1)
        torch.compiler.reset()


def test_page_counts_the_whole_corpus():
    rows = PAGE.read_text()
    for theme in THEMES:
        programs = [program for program in all_programs() if program.theme == theme]
        assert f"| {theme} ({len(programs)}) |" in rows, "run python -m test.compile.count"


def test_import_leaves_dynamo_alone():
    code = "import sys, functorch_ext; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
