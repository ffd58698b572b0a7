"""functionalize: the same numbers without mutations, and without views where asked."""

import pytest
import torch
from expecttest import assert_expected_inline
from torch.fx.experimental.proxy_tensor import make_fx

from functorch_ext import functionalize, grad, jacrev, jvp, vjp, vmap
from test.oracle import assert_close, loop, rand

REMOVE = pytest.mark.parametrize("remove", ["mutations", "mutations_and_views"])


def chain(x):
    y = x.clone()
    y.add_(1).mul_(x).sin_()
    return y


def through_a_view(x):
    y = x.clone()
    y.view(-1)[1:3].add_(1)
    return y


def view_of_a_view(x):
    y = x.clone()
    rows = y[1:]
    corner = rows.T[0]
    corner.mul_(3)
    rows.add_(corner[:, None].exp())
    return y, rows, corner


def base_is_seen_through_the_view(x):
    y = x.clone()
    view = y.diagonal()
    y.mul_(2)
    view.add_(1)
    y.exp_()
    return view, y


def item_assignment(x):
    y = torch.zeros_like(x)
    y[0] = x[1]
    y[:, 1] = 7.0
    y[2:, ::2] += x[:1, ::2]
    return y


def two_views_that_overlap(x):
    y = x.clone()
    first, second = y[:2], y[1:3]
    first.add_(second[0].exp())
    second.mul_(first[1].sin())
    return first + second


def views_with_several_outputs(x):
    y = x.clone()
    first, second = y.split(2)
    first.zero_()
    for row in second.unbind(0):
        row.add_(1)
    left, _ = y.chunk(2, 1)
    left.neg_()
    return y


def shape_changes_in_place(x):
    y = x.clone()
    y.t_().unsqueeze_(0).squeeze_(0)
    y.transpose_(0, 1).mul_(2)
    return y


def out_argument(x):
    out = torch.empty_like(x)
    torch.sin(x, out=out)
    torch.add(out, 1, out=out)
    return out


def indexed_writes(x):
    y = x.clone()
    index = torch.tensor([2, 0])
    y[index] = x[:2]
    y.index_add_(0, index, x[2:]).scatter_(1, index[None], 5.0).masked_fill_(x > 1, 0.0)
    return y


def fill_and_copy(x):
    y = x.new_empty(4, 4)
    y.fill_(2).copy_(x).clamp_(min=0)
    y.T.copy_(y * 3)
    return y


def expand_then_write_to_the_base(x):
    y = x[0].clone()
    wide = y.expand(3, 4)
    y.add_(1)
    return wide * 1


def buffer_that_accumulates(x):
    total = torch.zeros(4, dtype=x.dtype)
    for row in x:
        total += row
    return total


def dtype_is_kept(x):
    y = torch.zeros(4, 4, dtype=torch.float32)
    y.add_(x)
    return y


def pure(x):
    return x.sin().T @ x


PROGRAMS = [
    chain,
    through_a_view,
    view_of_a_view,
    base_is_seen_through_the_view,
    item_assignment,
    two_views_that_overlap,
    views_with_several_outputs,
    shape_changes_in_place,
    out_argument,
    indexed_writes,
    fill_and_copy,
    expand_then_write_to_the_base,
    buffer_that_accumulates,
    dtype_is_kept,
    pure,
]
EACH = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)


def schemas(graph_module):
    nodes = graph_module.graph.nodes
    overloads = [node for node in nodes if isinstance(node.target, torch._ops.OpOverload)]
    return [(node, node.target._schema) for node in overloads]


def is_view(schema):
    aliased = [argument for argument in schema.arguments if argument.alias_info is not None]
    return any(not argument.alias_info.is_write for argument in aliased)


@REMOVE
@EACH
def test_numbers(program, remove):
    x = rand(4, 4)
    original = x.clone()
    assert_close(functionalize(program, remove=remove)(x), program(x))
    assert torch.equal(x, original)


@REMOVE
@EACH
def test_the_graph_is_functional(program, remove):
    graph = make_fx(functionalize(program, remove=remove))(rand(4, 4))
    for node, schema in schemas(graph):
        assert not schema.is_mutable, f"{node.format_node()}\n{graph.code}"
        if remove == "mutations_and_views":
            assert not is_view(schema), f"{node.format_node()}\n{graph.code}"
    x = rand(4, 4)
    assert_close(graph(x), program(x))


def test_the_check_can_fail():
    found = [schema for _, schema in schemas(make_fx(through_a_view)(rand(4, 4)))]
    assert any(schema.is_mutable for schema in found) and any(is_view(schema) for schema in found)


@REMOVE
def test_graph_of_mutations(remove):
    graph = make_fx(functionalize(chain, remove=remove))(rand(2))
    assert_expected_inline(
        graph.code.strip(),
        """\
def forward(self, x_1):
    clone = torch.ops.aten.clone.default(x_1)
    add = torch.ops.aten.add.Tensor(clone, 1);  clone = None
    mul = torch.ops.aten.mul.Tensor(add, x_1);  add = x_1 = None
    sin = torch.ops.aten.sin.default(mul);  mul = None
    return sin""",
    )


@REMOVE
def test_graph_of_an_input_mutation(remove):
    def function(x):
        x.add_(1)
        x.mul_(3)
        return x * 2

    assert_expected_inline(
        make_fx(functionalize(function, remove=remove))(rand(2)).code.strip(),
        """\
def forward(self, x_1):
    add = torch.ops.aten.add.Tensor(x_1, 1)
    mul = torch.ops.aten.mul.Tensor(add, 3);  add = None
    mul_1 = torch.ops.aten.mul.Tensor(mul, 2)
    copy_ = torch.ops.aten.copy_.default(x_1, mul);  x_1 = mul = copy_ = None
    return mul_1""",
    )


def test_views_become_copies():
    def function(x):
        return x.view(-1)[1:]

    assert_expected_inline(
        make_fx(functionalize(function, remove="mutations_and_views"))(rand(2, 2)).code.strip(),
        """\
def forward(self, x_1):
    view_copy = torch.ops.aten.view_copy.default(x_1, [-1]);  x_1 = None
    slice_copy = torch.ops.aten.slice_copy.Tensor(view_copy, 0, 1, 9223372036854775807);  view_copy = None
    return slice_copy""",  # noqa: E501
    )


@REMOVE
@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.add_(1),
        lambda x: x.view(-1)[:2].mul_(3),
        lambda x: x.T[0].zero_(),
        lambda x: x.diagonal().copy_(x[0]),
    ],
)
def test_input_mutation_is_visible_to_the_caller(write, remove):
    x = rand(4, 4)
    expected, storage = x.clone(), x.data_ptr()
    returned = functionalize(lambda x: write(x).sum() + x, remove=remove)(x)
    plain = write(expected).sum() + expected
    assert_close((x, returned), (expected, plain))
    assert x.data_ptr() == storage


@REMOVE
def test_mutation_in_a_tree_of_inputs(remove):
    def function(tree, y):
        tree["a"][0].add_(y)
        y.mul_(2)
        return {"sum": tree["a"][0] + y}

    ours, plain = (({"a": [torch.ones(3)]}, torch.full((3,), 2.0)) for _ in range(2))
    assert_close(functionalize(function, remove=remove)(*ours), function(*plain))
    assert_close(ours, plain)


@REMOVE
def test_mutation_of_a_closed_over_tensor_happens_or_is_refused(remove):
    state = torch.zeros(3)
    try:
        functionalize(lambda x: state.add_(x), remove=remove)(torch.ones(3))
    except RuntimeError as error:
        assert "add_" in str(error) and torch.equal(state, torch.zeros(3))
    else:
        assert torch.equal(state, torch.ones(3))


@REMOVE
def test_resize_in_place_of_new_tensors(remove):
    def function(x):
        y = x.new_empty(0)
        y.resize_(2).fill_(1)
        return y

    assert_close(functionalize(function, remove=remove)(rand(3)), torch.ones(2).double())


def test_constants_pass():
    assert functionalize(lambda x: (x, 3, "text"))(torch.ones(2))[1:] == (3, "text")


@REMOVE
@EACH
def test_vmap_of_functionalize(program, remove):
    x = rand(3, 4, 4)
    assert_close(vmap(functionalize(program, remove=remove))(x), loop(program)(x))


# vmap itself refuses out=, and writing a sample's values into a tensor from outside, which all samples share
NOT_UNDER_VMAP = (out_argument, buffer_that_accumulates, dtype_is_kept)


@REMOVE
@pytest.mark.parametrize("program", [p for p in PROGRAMS if p not in NOT_UNDER_VMAP])
def test_functionalize_of_vmap(program, remove):
    x = rand(3, 4, 4)
    assert_close(functionalize(vmap(program), remove=remove)(x), loop(program)(x))


def total(x):
    return through_a_view(x.sin()).square().sum()


@REMOVE
def test_functionalize_of_derivatives(remove):
    x, tangent = rand(4, 4), rand(4, 4)
    plain = x.clone().requires_grad_()
    expected = torch.autograd.grad(total(plain), plain)[0]

    def pushed(x):
        return jvp(total, (x,), (tangent,))[1]

    def pulled(x):
        return vjp(total, x)[1](torch.ones((), dtype=torch.float64))[0]

    for function, wanted in (
        (grad(total), expected),
        (pulled, expected),
        (jacrev(total), expected),
        (pushed, (expected * tangent).sum()),
    ):
        functional = functionalize(function, remove=remove)
        assert_close(functional(x), wanted)
        graph = make_fx(functional)(x)
        assert not any(schema.is_mutable for _, schema in schemas(graph)), graph.code
        assert_close(graph(x), wanted)


@REMOVE
def test_derivatives_of_functionalize(remove):
    x = rand(4, 4)
    plain = x.clone().requires_grad_()
    expected = torch.autograd.grad(total(plain), plain)[0]
    functional = functionalize(total, remove=remove)
    assert_close(grad(functional)(x), expected)
    assert_close(jvp(functional, (x,), (x,))[1], (expected * x).sum())


@REMOVE
def test_functionalize_of_vmap_of_grad(remove):
    x = rand(3, 4, 4)
    functional = functionalize(vmap(grad(total)), remove=remove)
    expected = torch.stack([grad(total)(sample) for sample in x])
    assert_close(functional(x), expected)
    graph = make_fx(functional)(x)
    assert not any(schema.is_mutable for _, schema in schemas(graph)), graph.code


def test_nested():
    x = rand(4, 4)
    assert_close(functionalize(functionalize(through_a_view))(x), through_a_view(x))


def test_remove_has_two_values():
    with pytest.raises(RuntimeError, match="remove.*mutations_and_views"):
        functionalize(chain, remove="views")


@REMOVE
def test_views_of_numbers_to_be_conjugated(remove):
    z = rand(3, dtype=torch.complex128)

    def function(z):
        y = z.conj()
        y.imag.mul_(2)
        return y.imag, torch.view_as_real(y.resolve_conj()), y.conj().imag, z.conj().imag + 1

    plain = z.clone()
    given = z.clone()
    expected = function(plain)
    assert_close(functionalize(function, remove=remove)(given), expected)
    assert_close(given, plain)
