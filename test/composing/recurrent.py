"""Recurrent networks: also where PyTorch has one fused kernel for them."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from test.composing.rows import row, sample, total, uses

FEATURE = "Recurrent networks"
WAYS = (
    "grad", "jacrev", "jvp", "jacfwd", "grad(grad)", "jvp(grad)", "vmap", "vmap(grad)",
    "grad(vmap)", "jvp(vmap)", "vmap(jvp)",
)  # fmt: skip


def made(kind, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return kind(3, 4, **options).to(dtype)


def network(kind, dtype=torch.float64, **options):
    module = made(kind, dtype, **options)
    return lambda x: module(x)[0]


def with_state(kind):
    """Differentiated by the input and by the first state."""
    module = made(kind)

    def func(x, state):
        output, last = module(x, (state, state.sin()) if kind is nn.LSTM else state)
        return output, last[0] if kind is nn.LSTM else last

    return func


def cell(kind):
    module = made(kind)

    def func(x, state):
        output = module(x, (state, state.sin()) if kind is nn.LSTMCell else state)
        return output[0] if kind is nn.LSTMCell else output

    return func


def packed():
    module = made(nn.LSTM)
    return lambda x: module(pack_padded_sequence(x, [5, 3]))[0].data


def unfused(func):
    def plain(*args):
        with torch.backends.mkldnn.flags(enabled=False):
            return func(*args)

    return plain


def of_module(F, kind, dtype):
    module = made(kind, dtype)

    def loss(parameters, x):
        return total(lambda x: F.functional_call(module, parameters, (x,))[0])(x)

    parameters = dict(module.named_parameters())
    return module, loss, {k: p.detach() for k, p in parameters.items()}


def per_sample(kind, dtype):
    def compute(F):
        _, loss, parameters = of_module(F, kind, dtype)
        return F.vmap(F.grad(loss), (None, 0))(parameters, sample(2, 5, 2, 3, dtype=dtype))

    return compute


def ensemble(kind, dtype):
    def compute(F):
        _, loss, parameters = of_module(F, kind, dtype)
        stacked = {k: torch.stack([p, p.cos()]) for k, p in parameters.items()}
        x = sample(5, 2, 3, dtype=dtype)
        return F.vmap(F.grad(loss), (0, None))(stacked, x)

    return compute


def along_parameters(kind, dtype):
    def compute(F):
        _, loss, parameters = of_module(F, kind, dtype)
        tangents = {k: p.sin() for k, p in parameters.items()}
        x = sample(5, 2, 3, dtype=dtype)
        return F.jvp(lambda p: loss(p, x), (parameters,), (tangents,))

    return compute


def by_hand(compute):
    def expected():
        from test.composing import reference

        with torch.backends.mkldnn.flags(enabled=False):
            return compute(reference)

    return expected


KINDS = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}
CELLS = {"RNNCell": nn.RNNCell, "GRUCell": nn.GRUCell, "LSTMCell": nn.LSTMCell}
X = (sample(2, 5, 2, 3),)
X32 = (sample(2, 5, 2, 3, dtype=torch.float32),)


def rows_of(name, kind):
    yield from uses(FEATURE, name, network(kind), X, WAYS)
    func = network(kind, torch.float32)
    yield from uses(
        FEATURE, f"{name}, float32", func, X32, WAYS, plain=unfused(func), tolerance=1e-4
    )
    func = network(kind, num_layers=2, bidirectional=True, batch_first=True)
    yield from uses(FEATURE, f"{name}, two layers, two directions", func, X, WAYS)
    state = sample(2, 1, 2, 4, seed=1)
    yield from uses(FEATURE, f"{name}, a first state", with_state(kind), (*X, state), WAYS)
    yield from uses(
        FEATURE, f"{name}, only the first state mapped", with_state(kind), (X[0][0], state),
        ("vmap", "vmap(grad)", "grad(vmap)", "jvp(vmap)"), (None, 0),
    )  # fmt: skip
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        suffix = "" if dtype is torch.float64 else ", float32"
        for way, make in {
            "per-sample gradients": per_sample,
            "gradients of an ensemble": ensemble,
            "jvp by parameters": along_parameters,
        }.items():
            compute = make(kind, dtype)
            yield row(FEATURE, name + suffix, way, compute, by_hand(compute), tolerance)


ROWS = [
    *(each for name, kind in KINDS.items() for each in rows_of(name, kind)),
    *(each for name, kind in CELLS.items()
      for each in uses(FEATURE, name, cell(kind), (sample(2, 2, 3), sample(2, 2, 4, seed=1)),
                       WAYS)),
    *uses(FEATURE, "LSTM of a packed sequence", packed(), X, WAYS),
]  # fmt: skip
