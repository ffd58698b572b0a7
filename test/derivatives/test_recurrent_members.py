"""LSTMs with weights of their own, which oneDNN computes one after the other in float32.

The oracle is the loop over members in float64, where PyTorch's layers are made of operators.
"""

import pytest
import torch
from torch import nn

from functorch_ext import functional_call, grad, jvp, vjp, vmap
from test.oracle import assert_close, loop

MEMBERS, TIME, N, INPUT, SIZE = 3, 8, 16, 32, 64  # large enough for oneDNN
TOLERANCE = 2e-4


def made(**options):
    torch.manual_seed(0)
    return nn.LSTM(INPUT, SIZE, **options)


def everything(module):
    """Parameters, input and first states of all members."""
    layers = module.num_layers * (2 if module.bidirectional else 1)
    parameters = {
        name: torch.stack([p.detach() * (1 + 0.1 * i) for i in range(MEMBERS)])
        for name, p in module.named_parameters()
    }
    x = torch.randn(MEMBERS, *((N, TIME) if module.batch_first else (TIME, N)), INPUT)
    states = torch.randn(2, MEMBERS, layers, N, SIZE)
    return parameters, x, *states


def outputs(module, parameters, x, hidden, cell):
    output, last = functional_call(module, parameters, (x, (hidden, cell)))
    return output, *last


def loss_of(module):
    def loss(*args):
        return sum(output.sin().sum() / 10 for output in outputs(module, *args))

    return loss


def exactly(function, in_dims):
    """The loop over members in float64, its results in float32."""

    def looped(*args):
        exact = torch.utils._pytree.tree_map(torch.Tensor.double, args)
        return torch.utils._pytree.tree_map(
            lambda tensor: tensor.detach().float(), loop(function, in_dims)(*exact)
        )

    return looped


def plain_gradients(function):
    """By all arguments, of plain autograd."""

    def gradients(*args):
        leaves, spec = torch.utils._pytree.tree_flatten(args)
        leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        value = function(*torch.utils._pytree.tree_unflatten(leaves, spec))
        found = torch.autograd.grad(value, leaves)
        return torch.utils._pytree.tree_unflatten(found, spec)

    return gradients


ALL = (0, 1, 2, 3)


@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}, {"batch_first": True}],
)
@pytest.mark.parametrize("mapped", ["all", "weights", "weights and input"])
def test_gradients(options, mapped):
    module = made(**options)
    parameters, x, hidden, cell = everything(module)
    args, in_dims = {
        "all": ((parameters, x, hidden, cell), (0, 0, 0, 0)),
        "weights": ((parameters, x[0], hidden[0], cell[0]), (0, None, None, None)),
        "weights and input": ((parameters, x, hidden[0], cell[0]), (0, 0, None, None)),
    }[mapped]
    loss = loss_of(module)
    want = exactly(plain_gradients(loss), in_dims)(*args)
    assert_close(vmap(grad(loss, ALL), in_dims)(*args), want, TOLERANCE)
    by_input = exactly(lambda *args: plain_gradients(loss)(*args)[1], in_dims)(*args)
    assert_close(vmap(grad(loss, 1), in_dims)(*args), by_input, TOLERANCE)
    want = exactly(lambda *args: outputs(module, *args), in_dims)(*args)
    assert_close(vmap(lambda *args: outputs(module, *args), in_dims)(*args), want, TOLERANCE)


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (1, 2)])
def test_some_outputs_alone(which):
    module = made()
    args = everything(module)

    def loss(*args):
        found = outputs(module, *args)
        return sum(found[i].sin().sum() for i in which) / 10

    want = exactly(plain_gradients(loss), 0)(*args)
    assert_close(vmap(grad(loss, ALL))(*args), want, TOLERANCE)


def test_biases_or_one_weight_that_members_share():
    module = made()
    parameters, *rest = everything(module)
    loss = loss_of(module)
    for names in (("bias_ih_l0", "bias_hh_l0"), ("bias_hh_l0",), ("weight_hh_l0",)):
        some = {key: p[0] if key in names else p for key, p in parameters.items()}
        in_dims = ({key: None if key in names else 0 for key in some}, 0, 0, 0)
        want = exactly(plain_gradients(loss), in_dims)(some, *rest)
        assert_close(vmap(grad(loss, ALL), in_dims)(some, *rest), want, TOLERANCE)


def test_second_derivatives():
    """These go through the steps: oneDNN's gradients have none of their own."""
    module = made()
    args = everything(module)
    loss = loss_of(module)

    def norm(*args):
        return sum(slope.square().sum() for slope in grad(loss)(*args).values()) / 100

    def plain_norm(parameters, *rest):
        slopes = torch.autograd.grad(
            loss(parameters, *rest), list(parameters.values()), create_graph=True
        )
        return sum(slope.square().sum() for slope in slopes) / 100

    want = exactly(plain_gradients(plain_norm), 0)(*args)
    assert_close(vmap(grad(norm, ALL))(*args), want, 1e-3)

    # From outside, as a meta-learner takes them.
    outer = grad(lambda *args: vmap(norm)(*args).sum(), ALL)(*args)
    assert_close(outer, want, 1e-3)

    # A backward pass with tangents.
    def directional(*args):
        return jvp(lambda *args: grad(loss)(*args), args, args)[1]

    def plain_directional(parameters, *rest):
        leaves = {key: p.detach().clone().requires_grad_() for key, p in parameters.items()}
        rest = [x.detach().clone().requires_grad_() for x in rest]
        slopes = torch.autograd.grad(loss(leaves, *rest), list(leaves.values()), create_graph=True)
        inputs = [*leaves.values(), *rest]
        found = []
        for slope in slopes:  # row by row would take long: a vector-Jacobian product of each twice
            seed = torch.zeros_like(slope, requires_grad=True)
            pulled = torch.autograd.grad(slope, inputs, seed, create_graph=True)
            total = sum((p * x.detach()).sum() for p, x in zip(pulled, inputs, strict=True))
            found.append(torch.autograd.grad(total, seed)[0])
        return dict(zip(leaves, found, strict=True))

    want = exactly(plain_directional, 0)(*args)
    assert_close(vmap(directional)(*args), want, 1e-3)


def test_inside_another_vmap():
    module = made()
    args = everything(module)
    loss = loss_of(module)
    twice = torch.utils._pytree.tree_map(lambda tensor: torch.stack([tensor, -tensor]), args)
    got = vmap(vmap(grad(loss, ALL)))(*twice)
    for i, sign in enumerate((1, -1)):
        part = torch.utils._pytree.tree_map(lambda tensor, sign=sign: sign * tensor, args)
        found = torch.utils._pytree.tree_map(lambda tensor, i=i: tensor[i], got)
        assert_close(found, exactly(plain_gradients(loss), 0)(*part), TOLERANCE)


def test_two_passes_back():
    module = made()
    args = everything(module)

    def twice(parameters, *rest):
        output, pull = vjp(lambda p: outputs(module, p, *rest)[0], parameters)
        return pull(output)[0], pull(output.cos())[0]

    def plainly(parameters, *rest):
        def weighted(weight):
            def loss(p):
                output = outputs(module, p, *rest)[0]
                return (output * weight(output).detach()).sum()

            return plain_gradients(loss)(parameters)[0]

        return weighted(lambda y: y), weighted(torch.cos)

    assert_close(vmap(twice)(*args), exactly(plainly, 0)(*args), 1e-3)


def test_writing_to_a_result():
    """What the backward pass needs is not what the program gets."""
    module = made()
    args = everything(module)

    def loss(*args):
        output, *last = outputs(module, *args)
        output = output.mul_(2)
        return (output.sin() + last[0].add_(1).sum() + last[1].mul_(2).sum()).sum() / 1000

    want = exactly(plain_gradients(loss), 0)(*args)
    assert_close(vmap(grad(loss, ALL))(*args), want, TOLERANCE)


def test_without_onednn():
    module = made()
    args = everything(module)
    loss = loss_of(module)
    with torch.backends.mkldnn.flags(enabled=False):
        found = vmap(grad(loss, ALL))(*args)
    assert_close(found, exactly(plain_gradients(loss), 0)(*args), TOLERANCE)


def test_parameters_that_require_grad_outside():
    module = made()
    parameters, *rest = everything(module)
    loss = loss_of(module)
    want = exactly(plain_gradients(loss), 0)(parameters, *rest)
    leaves = {name: p.clone().requires_grad_() for name, p in parameters.items()}
    with torch.no_grad():
        assert_close(vmap(grad(loss, ALL))(leaves, *rest), want, TOLERANCE)
    total = vmap(loss)(leaves, *rest).sum()
    found = torch.autograd.grad(total, list(leaves.values()))
    assert_close(dict(zip(leaves, found, strict=True)), want[0], TOLERANCE)
