"""Recurrent networks under vmap and differentiation, against loops over plain PyTorch.

In float64 PyTorch's own layers are made of differentiable operators, so they are the oracle; in
float32 CPUs have a fused LSTM, with no forward mode and no batching rule.
"""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from functorch_ext import (
    functional_call,
    grad,
    hessian,
    jacrev,
    jvp,
    stack_module_state,
    vmap,
)
from test import oracle
from test.oracle import assert_close, loop

pytestmark = pytest.mark.filterwarnings("error::functorch_ext.FallbackWarning")
BATCH, TIME, N, INPUT, HIDDEN = 3, 4, 2, 3, 5
LAYERS = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN": nn.RNN,
    "RNN relu": lambda *args, **kwargs: nn.RNN(*args, nonlinearity="relu", **kwargs),
}
OPTIONS = {
    "one layer": {},
    "two layers": {"num_layers": 2},
    "both directions": {"bidirectional": True, "num_layers": 2},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "projection": {"proj_size": 2, "num_layers": 2, "bidirectional": True},
}
CASES = [
    (name, options)
    for name in LAYERS
    for options in OPTIONS
    if name == "LSTM" or options != "projection"
]


def make(name, options, dtype=torch.float64):
    torch.manual_seed(0)
    return LAYERS[name](INPUT, HIDDEN, **OPTIONS[options]).to(dtype)


def sequences(*leading, dtype=torch.float64):
    return torch.randn(*leading, TIME, N, INPUT, dtype=dtype)


def first_states(module, *leading, dtype=torch.float64):
    count = module.num_layers * (2 if module.bidirectional else 1)
    n = TIME if module.batch_first else N
    hidden = torch.randn(*leading, count, n, module.proj_size or HIDDEN, dtype=dtype)
    if module.mode != "LSTM":
        return (hidden,)
    return hidden, torch.randn(*leading, count, n, HIDDEN, dtype=dtype)


def run(module, parameters, x, *states):
    given = () if not states else (states if module.mode == "LSTM" else states[0],)
    output, last = functional_call(module, parameters, (x, *given))
    return [output, *(last if isinstance(last, tuple) else (last,))]


def parameters_of(module):
    return {name: p.detach() for name, p in module.named_parameters()}


def squash(outputs):
    return sum(output.sin().sum() for output in outputs)


def plain_gradient(loss, parameters, x):
    leaves = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
    x = x.detach().clone().requires_grad_()
    found = torch.autograd.grad(loss(leaves, x), [*leaves.values(), x])
    return dict(zip(leaves, found[:-1], strict=True)), found[-1]


def tolerance(dtype):
    return 1e-9 if dtype == torch.float64 else 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_layers(name, options, dtype):
    module = make(name, options, dtype)
    parameters = parameters_of(module)
    x = sequences(BATCH, dtype=dtype)

    def call(parameters, x, *states):
        return run(module, parameters, x, *states)

    def loss(parameters, x):
        return squash(call(parameters, x))

    close = tolerance(dtype)
    assert_close(vmap(call, (None, 0))(parameters, x), loop(call, (None, 0))(parameters, x), close)
    assert_close(
        vmap(call, (None, -1))(parameters, x.movedim(0, -1)),
        loop(call, (None, 0))(parameters, x),
        close,
    )
    # An ensemble.
    stacked, _ = stack_module_state([make(name, options, dtype) for _ in range(BATCH)])
    stacked = {name: p.detach() + 0.1 * torch.randn_like(p) for name, p in stacked.items()}
    for in_dims, args in (((0, 0), (stacked, x)), ((0, None), (stacked, x[0]))):
        assert_close(vmap(call, in_dims)(*args), loop(call, in_dims)(*args), close)
    # First states, batched or not.
    states = first_states(module, BATCH, dtype=dtype)
    shared = tuple(state[0] for state in states)
    some = (None,) * len(states)
    for in_dims, args in (
        ((None, 0, *(0,) * len(states)), (parameters, x, *states)),
        ((None, 0, *some), (parameters, x, *shared)),
        ((None, None, *(0,) * len(states)), (parameters, x[0], *states)),
    ):
        assert_close(vmap(call, in_dims)(*args), loop(call, in_dims)(*args), close)
    # Per-sample gradients, and gradients of all samples.
    got = vmap(grad(loss, (0, 1)), (None, 0))(parameters, x)
    want = loop(lambda p, x: plain_gradient(loss, p, x), (None, 0))(parameters, x)
    assert_close(got, want, close)
    summed = grad(lambda p: squash(vmap(call, (None, 0))(p, x)))(parameters)
    assert_close(summed, {name: g.sum(0) for name, g in want[0].items()}, close)
    # Forward mode.
    tangent = x.cos()
    products = torch.stack([(g * t).sum() for g, t in zip(want[1], tangent, strict=True)])
    forward = vmap(lambda x, t: jvp(lambda x: loss(parameters, x), (x,), (t,))[1])(x, tangent)
    assert_close(forward, products, close)
    alone = jvp(lambda x: loss(parameters, x), (x[0],), (tangent[0],))[1]
    assert_close(alone, products[0], close)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", LAYERS)
def test_second_derivatives(name, dtype):
    module = make(name, "one layer", dtype)
    parameters = parameters_of(module)
    x = sequences(BATCH, dtype=dtype)[:, :2, :1]
    exact = make(name, "one layer")
    exact.load_state_dict(module.double().state_dict())
    module.to(dtype)
    exact_parameters = parameters_of(exact)

    def of_input(x):
        return squash(run(module, parameters, x))

    def exactly(x):
        return squash(run(exact, exact_parameters, x))

    want = loop(oracle.hessian(exactly))(x.double()).to(dtype)
    assert_close(torch.stack([hessian(of_input)(sample) for sample in x]), want, tolerance(dtype))
    assert_close(vmap(hessian(of_input))(x), want, tolerance(dtype))
    twice = grad(lambda x: grad(of_input)(x).sin().sum())
    want = loop(oracle.grad(lambda x: oracle.grad(exactly)(x).sin().sum()))(x.double()).to(dtype)
    assert_close(torch.stack([twice(sample) for sample in x]), want, tolerance(dtype))
    assert_close(vmap(twice)(x), want, tolerance(dtype))


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_unbatched_sequences(name):
    module = make(name, "both directions")
    x = sequences(BATCH)[:, :, 0]

    def call(x):
        return run(module, {}, x)[0]

    assert_close(vmap(call)(x), loop(call)(x))
    assert_close(
        vmap(grad(lambda x: squash([call(x)])))(x),
        loop(oracle.grad(lambda x: squash([call(x)])))(x),
    )


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_dropout_between_layers(name):
    module = LAYERS[name](INPUT, HIDDEN, num_layers=2, dropout=0.5).double()
    x = sequences()
    same_inputs = x.expand(BATCH, *x.shape)

    def call(x):
        return module(x)[0]

    with pytest.raises(RuntimeError, match="randomness='error'"):
        vmap(call)(same_inputs)
    different = vmap(call, randomness="different")(same_inputs)
    assert not torch.allclose(different[0], different[1])
    same = vmap(call, randomness="same")(same_inputs)
    assert_close(same[0], same[1])
    module.eval()
    assert_close(vmap(call)(same_inputs), loop(call)(same_inputs))


CELLS = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("shape", [(N, INPUT), (INPUT,)])
def test_cells(name, shape):
    module = CELLS[name](INPUT, HIDDEN).double()
    parameters = parameters_of(module)
    x = torch.randn(BATCH, *shape, dtype=torch.float64)
    state = torch.randn(BATCH, *shape[:-1], HIDDEN, dtype=torch.float64)

    def call(parameters, x, state=None):
        given = () if state is None else ((state, state.cos()) if name == "LSTM" else state,)
        output = functional_call(module, parameters, (x, *given))
        return list(output) if isinstance(output, tuple) else [output]

    def loss(parameters, x):
        return squash(call(parameters, x))

    stacked = {name: torch.stack([p, p.cos(), -p]) for name, p in parameters.items()}
    for in_dims, args in (
        ((None, 0), (parameters, x)),
        ((0, None), (stacked, x[0])),
        ((None, 0, 0), (parameters, x, state)),
        ((None, 0, None), (parameters, x, state[0])),
        ((None, None, 0), (parameters, x[0], state)),
    ):
        assert_close(vmap(call, in_dims)(*args), loop(call, in_dims)(*args))
    got = vmap(grad(loss, (0, 1)), (None, 0))(parameters, x)
    assert_close(got, loop(lambda p, x: plain_gradient(loss, p, x), (None, 0))(parameters, x))
    second = vmap(hessian(lambda x: loss(parameters, x)))(x)
    assert_close(second, loop(oracle.hessian(lambda x: loss(parameters, x)))(x))


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("options", ["one layer", "both directions"])
def test_packed_sequences(name, options):
    module = make(name, options)
    parameters = parameters_of(module)
    x = torch.randn(BATCH, TIME, 3, INPUT, dtype=torch.float64)
    lengths = torch.tensor([4, 2, 1])

    def call(parameters, x):
        packed = pack_padded_sequence(x, lengths)
        output, last = functional_call(module, parameters, (packed,))
        assert isinstance(output, PackedSequence)
        padded, _ = pad_packed_sequence(output, padding_value=0.5)
        return [padded, *(last if isinstance(last, tuple) else (last,))]

    def loss(parameters, x):
        return squash(call(parameters, x))

    assert_close(vmap(call, (None, 0))(parameters, x), loop(call, (None, 0))(parameters, x))
    got = vmap(grad(loss, (0, 1)), (None, 0))(parameters, x)
    want = loop(lambda p, x: plain_gradient(loss, p, x), (None, 0))(parameters, x)
    assert_close(got, want)
    forward = jvp(lambda x: loss(parameters, x), (x[0],), (x[0].cos(),))[1]
    assert_close(forward, (want[1][0] * x[0].cos()).sum())
    rows = jacrev(lambda x: call(parameters, x)[0])(x[0])
    assert_close(rows, oracle.jacobian(lambda x: call(parameters, x)[0])(x[0]))
    with pytest.raises(RuntimeError, match="lengths differ between samples"):
        vmap(lambda x, lengths: pack_padded_sequence(x, lengths, enforce_sorted=False).data)(
            x, torch.stack([lengths - i for i in range(BATCH)])
        )


def test_no_samples():
    module = make("LSTM", "one layer")
    assert vmap(lambda x: module(x)[0])(sequences(0)).shape == (0, TIME, N, HIDDEN)


def test_fused_cells():
    """The kernels that GPUs have, computed of other operators: the values and derivatives."""
    gates, state = (
        torch.randn(2, BATCH, N, 4 * HIDDEN).double(),
        torch.randn(BATCH, N, HIDDEN).double(),
    )
    bias = torch.randn(4 * HIDDEN).double()

    def lstm(from_input, from_state, cell):
        hidden, cell, _ = torch.ops.aten._thnn_fused_lstm_cell(
            from_input, from_state, cell, bias, bias
        )
        return hidden.sin() + cell

    def plain_lstm(from_input, from_state, cell):
        i, f, g, o = (from_input + from_state + 2 * bias).chunk(4, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return (o.sigmoid() * cell.tanh()).sin() + cell

    def gru(from_input, from_state, hidden):
        return torch.ops.aten._thnn_fused_gru_cell(from_input, from_state, hidden)[0]

    def plain_gru(from_input, from_state, hidden):
        a, b = from_input.chunk(3, 1), from_state.chunk(3, 1)
        r, z = (a[0] + b[0]).sigmoid(), (a[1] + b[1]).sigmoid()
        n = (a[2] + r * b[2]).tanh()
        return (1 - z) * n + z * hidden

    short = gates[..., : 3 * HIDDEN].clone()
    for ours, plain, args in (
        (lstm, plain_lstm, (*gates, state)),
        (gru, plain_gru, (*short, state)),
    ):
        assert_close(vmap(ours)(*args), loop(plain)(*args))
        got = vmap(grad(lambda *args, f=ours: f(*args).sin().sum(), (0, 1, 2)))(*args)
        want = [
            loop(oracle.grad(lambda *args, f=plain: f(*args).sin().sum(), i))(*args)
            for i in range(3)
        ]
        assert_close(list(got), want)
