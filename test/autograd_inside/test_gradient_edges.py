"""``torch.autograd`` inside ``vmap`` takes places in the graph, as module hooks capture them."""

import pytest
import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge

from functorch_ext import grad, jvp, vmap
from test.oracle import assert_close, loop, rand


def of_leaf(func):
    """The function, of a leaf made inside."""
    return lambda x: func(x.detach().clone().requires_grad_())


def by_an_edge(x):
    y = x.sin()
    return torch.autograd.grad((y * x).sum(), get_gradient_edge(y))


def by_edges_and_tensors(x):
    y = x.sin()
    first, second = torch.unbind(y * x)[:2]
    inputs = [get_gradient_edge(second), x, get_gradient_edge(x), y, get_gradient_edge(first)]
    return torch.autograd.grad((first * second).exp(), inputs)


def of_an_edge(x):
    y = (x.sin() * x).sum()
    return torch.autograd.grad(get_gradient_edge(y), x)


def of_edges_with_cotangents(x):
    y = x.sin()
    outputs = [get_gradient_edge(y), (x * y).sum()]
    return torch.autograd.grad(outputs, [x, get_gradient_edge(y)], [x.detach(), None])


def unused(x):
    other = x.cos()
    found = torch.autograd.grad(x.sum(), [x, get_gradient_edge(other)], allow_unused=True)
    return found[0], torch.tensor(found[1] is None)


def materialized(x):
    y = x.sin()
    edge = get_gradient_edge(y)
    return torch.autograd.grad(y.sum(), [edge, x, x.cos()], materialize_grads=True)


def batched_cotangents(x):
    y = x.sin()
    basis = torch.eye(3, dtype=x.dtype)
    inputs = [get_gradient_edge(y), x]
    return torch.autograd.grad(y * x, inputs, basis, is_grads_batched=True)


def batched_cotangents_of_an_edge(x):
    y = x.sin() * x
    basis = torch.eye(3, dtype=x.dtype)
    return torch.autograd.grad(get_gradient_edge(y), [x], basis, is_grads_batched=True)


def twice(x):
    y = x.exp()
    (gradient,) = torch.autograd.grad(y.square().sum(), get_gradient_edge(y), create_graph=True)
    return torch.autograd.grad((gradient * x).sum(), [get_gradient_edge(y), x])


def backward_of_an_edge(x):
    y = (x.sin() * x).sum()
    torch.autograd.backward(get_gradient_edge(y))
    return x.grad


def backward_to_edges(x):
    y = x.sin()
    torch.autograd.backward((y * x).sum(), inputs=[get_gradient_edge(x), get_gradient_edge(y)])
    return x.grad


def of_a_custom_function(x):
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, cotangent):
            return cotangent * 3 * ctx.saved_tensors[0] ** 2

    y = Cube.apply(x)
    edge = get_gradient_edge(y)
    return torch.autograd.grad((y * x).sum(), [edge, x], retain_graph=True)


MODEL = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()


def of_module_hooks(x):
    edges = []
    hook = lambda *call: edges.append(get_gradient_edge(call[-1]))
    handles = [layer.register_forward_hook(hook) for layer in MODEL]
    output = MODEL(x)
    for handle in handles:
        handle.remove()
    return torch.autograd.grad(output.square().sum(), edges)


FUNCTIONS = (
    by_an_edge, by_edges_and_tensors, of_an_edge, of_edges_with_cotangents, unused, materialized,
    batched_cotangents, batched_cotangents_of_an_edge, twice, backward_of_an_edge,
    backward_to_edges, of_a_custom_function, of_module_hooks,
)  # fmt: skip


@pytest.mark.parametrize("func", FUNCTIONS)
@pytest.mark.parametrize("depth", [1, 2])
def test_as_in_a_loop(func, depth):
    mapped = looped = of_leaf(func)
    for _ in range(depth):
        mapped, looped = vmap(mapped), loop(looped)
    x = rand(2, 3) if depth == 1 else rand(2, 2, 3)
    assert_close(mapped(x), looped(x))


def test_inside_grad():
    """An edge of a graph that a transform records."""

    def penalty(x):
        y = x.sin()
        (gradient,) = torch.autograd.grad((y * x).sum(), get_gradient_edge(y), create_graph=True)
        return (gradient * y).sum()

    x = rand(2, 3)
    expected = x.cos() * x + x.sin()
    for each in (vmap(grad(penalty)), grad(lambda x: vmap(of_inner(penalty))(x).sum())):
        assert_close(each(x), expected)


def of_inner(func):
    return lambda x: func(x.requires_grad_())


def test_tangents_go_along():
    def func(x):
        y = x.detach().requires_grad_()
        z = y.exp()
        return x * torch.autograd.grad((z * z).sum(), get_gradient_edge(z))[0]

    x, t = rand(2, 3), rand(2, 3)
    expected = vmap(lambda x, t: jvp(lambda x: x * 2 * x.detach().exp(), (x,), (t,)))(x, t)
    assert_close(vmap(lambda x, t: jvp(func, (x,), (t,)))(x, t), expected)


def test_edges_of_tensors_from_outside():
    """Shared by all samples: a gradient of each sample, as for a tensor itself."""
    w = rand(3).requires_grad_()
    y = w.sin()
    func = lambda x, place: torch.autograd.grad((x * y).sum(), place, retain_graph=True)[0]
    x = rand(2, 3)
    for place in (get_gradient_edge(y), get_gradient_edge(w)):
        with pytest.warns(UserWarning, match="one per sample"):
            found = vmap(func, in_dims=(0, None))(x, place)
        assert_close(found, torch.stack([func(each, place) for each in x]))


def test_errors():
    def unused(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(x.sum(), get_gradient_edge(x.cos()))

    with pytest.raises(RuntimeError, match="appears to not have been used"):
        vmap(unused)(rand(2, 3))

    def materialized(x):
        x = x.detach().requires_grad_()
        edge = get_gradient_edge(x.cos())
        return torch.autograd.grad(x.sum(), edge, materialize_grads=True)

    with pytest.raises(RuntimeError, match="when the given input is a GradientEdge"):
        vmap(materialized)(rand(2, 3))

    def not_a_node(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(x.sum(), GradientEdge(3, 0))

    with pytest.raises(TypeError, match="must be a node of autograd's graph"):
        vmap(not_a_node)(rand(2, 3))

    def no_such_output(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(x.sum(), GradientEdge(x.cos().grad_fn, 7))

    with pytest.raises(ValueError, match="names output 7"):
        vmap(no_such_output)(rand(2, 3))
