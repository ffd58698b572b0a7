"""A recurrent layer under vmap is one node: all its gradients, and who else uses or follows it."""

import pytest
import torch
from torch import nn

from functorch_ext import functional_call, grad, hessian, jacrev, jvp, vjp, vmap
from test import oracle
from test.oracle import assert_close, loop

BATCH, TIME, N, INPUT, SIZE = 3, 4, 2, 3, 5
KINDS = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN": nn.RNN,
    "RNN relu": lambda *args, **kwargs: nn.RNN(*args, nonlinearity="relu", **kwargs),
}
every_kind = pytest.mark.parametrize("name", KINDS)


def made(name, **options):
    torch.manual_seed(0)
    return KINDS[name](INPUT, SIZE, **options).double()


def everything(module, *leading):
    """Parameters, input and first states, the last two with `leading` dimensions."""
    layers = module.num_layers * (2 if module.bidirectional else 1)
    x = torch.randn(*leading, TIME, N, INPUT).double()
    states = torch.randn(2, *leading, layers, N, SIZE).double()
    return {key: p.detach() for key, p in module.named_parameters()}, x, *states


def outputs(module, parameters, x, hidden, cell):
    """All outputs; an LSTM alone takes a cell."""
    states = (hidden, cell) if module.mode == "LSTM" else hidden
    output, last = functional_call(module, parameters, (x, states))
    return [output, *(last if isinstance(last, tuple) else (last,))]


def loss_of(module):
    def loss(*args):
        return sum(output.sin().sum() for output in outputs(module, *args))

    return loss


def plain_gradients(function):
    """By all arguments, of plain autograd."""

    def gradients(*args):
        leaves, spec = torch.utils._pytree.tree_flatten(args)
        leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        value = function(*torch.utils._pytree.tree_unflatten(leaves, spec))
        found = torch.autograd.grad(value, leaves, allow_unused=True)
        found = [
            torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)
        ]
        return torch.utils._pytree.tree_unflatten(found, spec)

    return gradients


ALL = (0, 1, 2, 3)


@every_kind
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}])
@pytest.mark.parametrize("mapped", ["samples", "inputs", "states", "weights", "all"])
def test_gradients(name, options, mapped):
    module = made(name, **options)
    parameters, x, hidden, cell = everything(module, BATCH)
    stacked = {
        key: torch.stack([p * (1 + 0.1 * i) for i in range(BATCH)]) for key, p in parameters.items()
    }
    args, in_dims = {
        "samples": ((parameters, x, hidden, cell), (None, 0, 0, 0)),
        "inputs": ((parameters, x, hidden[0], cell[0]), (None, 0, None, None)),
        "states": ((parameters, x[0], hidden, cell), (None, None, 0, 0)),
        "weights": ((stacked, x[0], hidden[0], cell[0]), (0, None, None, None)),
        "all": ((stacked, x, hidden, cell), (0, 0, 0, 0)),
    }[mapped]
    loss = loss_of(module)
    want = loop(plain_gradients(loss), in_dims)(*args)
    assert_close(vmap(grad(loss, ALL), in_dims)(*args), want)


@every_kind
def test_one_of_the_weights_or_biases_differs_between_samples(name):
    module = made(name)
    parameters, x, hidden, cell = everything(module, BATCH)
    loss = loss_of(module)
    for key, p in parameters.items():
        stacked = {**parameters, key: torch.stack([p, p.cos(), -p])}
        in_dims = ({other: 0 if other == key else None for other in parameters}, 0, 0, 0)
        args = (stacked, x, hidden, cell)
        want = loop(plain_gradients(loss), in_dims)(*args)
        assert_close(vmap(grad(loss, ALL), in_dims)(*args), want)


@every_kind
def test_each_output_alone(name):
    module = made(name)
    args = everything(module, BATCH)
    for i in range(3 if name == "LSTM" else 2):

        def loss(*args, i=i):
            return outputs(module, *args)[i].sin().sum()

        want = loop(plain_gradients(loss), (None, 0, 0, 0))(*args)
        assert_close(vmap(grad(loss, ALL), (None, 0, 0, 0))(*args), want)


@every_kind
def test_inside_another_vmap(name):
    module = made(name)
    args = everything(module, 2, BATCH)
    loss = loss_of(module)
    got = vmap(vmap(grad(loss, ALL), (None, 0, 0, 0)), (None, 0, 0, 0))(*args)
    want = loop(loop(plain_gradients(loss), (None, 0, 0, 0)), (None, 0, 0, 0))(*args)
    assert_close(got, want)


@every_kind
def test_jacobians_and_second_derivatives(name):
    module = made(name)
    parameters, x, hidden, cell = everything(module, BATCH)

    def last(x):
        return outputs(module, parameters, x, hidden[0], cell[0])[1]

    def squares(x):
        return last(x).square().sum()

    assert_close(vmap(jacrev(last))(x), loop(oracle.jacobian(last))(x))
    assert_close(vmap(hessian(squares))(x), loop(oracle.hessian(squares))(x))
    assert_close(vmap(jacrev(jacrev(squares)))(x), loop(oracle.hessian(squares))(x))

    def directional(x):
        return jvp(grad(squares), (x,), (x.cos(),))[1]

    want = torch.einsum("bijkxyz,bxyz->bijk", loop(oracle.hessian(squares))(x), x.cos())
    assert_close(vmap(directional)(x), want)


@every_kind
def test_gradient_of_gradients(name):
    """As a meta-learner takes it: by weights from outside of the mapped function."""
    module = made(name)
    args = everything(module, BATCH)
    loss = loss_of(module)

    def norms(parameters):
        slopes = vmap(grad(loss), (None, 0, 0, 0))(parameters, *args[1:])
        return sum(slope.square().sum() for slope in slopes.values())

    def plain_norms(parameters):
        total = 0
        for sample in zip(*args[1:], strict=True):
            value = loss(parameters, *sample)
            slopes = torch.autograd.grad(value, list(parameters.values()), create_graph=True)
            total = total + sum(slope.square().sum() for slope in slopes)
        return total

    (want,) = plain_gradients(plain_norms)(args[0])
    assert_close(grad(norms)(args[0]), want)


@every_kind
def test_two_passes_back(name):
    module = made(name)
    parameters, x, hidden, cell = everything(module, BATCH)

    def twice(x, hidden, cell):
        output, pull = vjp(lambda p: outputs(module, p, x, hidden, cell)[0], parameters)
        return pull(output), pull(output.cos())

    def plainly(x, hidden, cell):
        def weighted(weight):
            def loss(p):
                output = outputs(module, p, x, hidden, cell)[0]
                return (output * weight(output).detach()).sum()

            return plain_gradients(loss)(parameters)

        return weighted(lambda y: y), weighted(torch.cos)

    assert_close(vmap(twice)(x, hidden, cell), loop(plainly)(x, hidden, cell))


@every_kind
def test_writing_to_a_result(name):
    """What the backward pass needs is not what the program gets."""
    module = made(name)
    args = everything(module, BATCH)

    def loss(*args):
        output, *last = outputs(module, *args)
        output = output.mul_(2)
        return (output.sin() + last[0].add_(1).sum()).sum()

    want = loop(plain_gradients(loss), (None, 0, 0, 0))(*args)
    assert_close(vmap(grad(loss, ALL), (None, 0, 0, 0))(*args), want)


def test_writing_to_the_input_is_noticed():
    module = made("LSTM")
    parameters, x, hidden, cell = everything(module, BATCH)

    def loss(x):
        x = x * 1
        value = outputs(module, parameters, x, hidden[0], cell[0])[0].sum()
        x.zero_()
        return value

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        vmap(grad(loss))(x)


@every_kind
@pytest.mark.parametrize("outside", ["grad", "no_grad"])
def test_is_one_node(name, outside):
    module = made(name)
    parameters, x, hidden, cell = everything(module, BATCH)
    found = []
    if outside == "no_grad":
        parameters = dict(module.named_parameters())

    def loss(parameters, x):
        output = outputs(module, parameters, x, hidden[0], cell[0])[0]
        found.append(output.grad_fn)
        return output.sum()

    with torch.set_grad_enabled(outside != "no_grad"):
        got = vmap(grad(loss), (None, 0))(parameters, x)
    assert not any(gradient.requires_grad for gradient in got.values())
    nodes = set()
    while found:
        if (node := found.pop()) and node not in nodes:
            nodes.add(node)
            found += [function for function, _ in node.next_functions]
    assert [n.name() for n in nodes].count("functorch_ext::RecurrentBackward") == 1
    assert len(nodes) < 20


@every_kind
def test_parameters_that_are_differentiated_outside(name):
    """The gradients belong to the graph of the parameters."""
    module = made(name)
    _, x, hidden, cell = everything(module, BATCH)
    parameters = dict(module.named_parameters())
    loss = loss_of(module)
    got = vmap(grad(loss), (None, 0, 0, 0))(parameters, x, hidden, cell)
    got = torch.autograd.grad(sum(g.sin().sum() for g in got.values()), parameters.values())
    total = 0
    for sample in zip(x, hidden, cell, strict=True):
        value = loss(parameters, *sample)
        slopes = torch.autograd.grad(value, parameters.values(), create_graph=True)
        total = total + sum(slope.sin().sum() for slope in slopes)
    assert_close(got, torch.autograd.grad(total, parameters.values()))


@every_kind
@pytest.mark.parametrize("mapped", ["samples", "weights"])
def test_under_autocast(name, mapped):
    """Where it is on in the forward pass, in the backward pass alone, or in both."""
    module = made(name).float()
    parameters, x, hidden, cell = everything(module, BATCH)
    x, hidden, cell = x.float(), hidden.float(), cell.float()
    if mapped == "weights":
        parameters = {key: torch.stack([p, p.cos(), -p]) for key, p in parameters.items()}
    in_dims = (0 if mapped == "weights" else None, 0, 0, 0)

    def gradients(forward, backward):
        def of_sample(*args):
            with torch.autocast("cpu", torch.bfloat16, enabled=forward):
                output, pull = vjp(
                    lambda *args: sum(x.sum() for x in outputs(module, *args)), *args
                )
            with torch.autocast("cpu", torch.bfloat16, enabled=backward):
                return pull(torch.ones_like(output))

        return vmap(of_sample, in_dims)(parameters, x, hidden, cell)

    want = gradients(False, False)
    assert_close(gradients(False, True), want, 1e-5)
    for backward in (False, True):
        assert_close(gradients(True, backward), want, 0.2)
