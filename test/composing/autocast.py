"""torch.autocast inside and around transforms: the dtypes and values that plain torch gives."""

import torch
from torch import nn
from torch.nn import functional

from test.composing.rows import row, sample, uses

FEATURE = "torch.autocast"
WAYS = ("vmap", "grad", "vmap(grad)", "grad(vmap)")


def weight(*shape):
    return sample(*shape, dtype=torch.float32, seed=2)


def made(kind, *args, **options):
    torch.manual_seed(0)
    return kind(*args, **options)


LSTM = made(nn.LSTM, 4, 4)
LAYER = made(nn.TransformerEncoderLayer, 4, 2, 8, dropout=0.0, batch_first=True)


def lstm(x):
    with torch.backends.mkldnn.flags(enabled=False):  # it lacks low precision on many processors
        return LSTM(x)[0]


# op: a function of one float32 sample of shape (3, 4)
OPERATORS = {
    "linear": lambda x: functional.linear(x, weight(5, 4), weight(5)),
    "matmul": lambda x: x @ weight(4, 4),
    "matmul of two batched": lambda x: x @ x.T,
    "mv": lambda x: x @ weight(4),
    "bmm": lambda x: torch.bmm(x[None].expand(2, 3, 4), weight(2, 4, 2)),
    "addmm": lambda x: torch.addmm(weight(5), x, weight(4, 5)),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, weight(5, 4)),
    "conv1d": lambda x: functional.conv1d(x[None], weight(2, 3, 3)),
    "conv2d": lambda x: functional.conv2d(x[None, None], weight(2, 1, 2, 2)),
    "conv_transpose1d": lambda x: functional.conv_transpose1d(x[None], weight(3, 2, 2)),
    "softmax": lambda x: x.softmax(-1),
    "softmax of a linear": lambda x: functional.linear(x, weight(5, 4)).softmax(-1),
    "sum": lambda x: (x @ weight(4, 4)).sum(-1),
    "exp, pow": lambda x: (x @ weight(4, 4)).exp().pow(2),
    "layer_norm": lambda x: functional.layer_norm(x @ weight(4, 4), (4,), weight(4)),
    "group_norm": lambda x: functional.group_norm((x @ weight(4, 4))[None], 3),
    "mse_loss": lambda x: functional.mse_loss(x @ weight(4, 4), weight(3, 4)),
    "cross_entropy": lambda x: functional.cross_entropy(x @ weight(4, 4), torch.tensor([1, 3, 0])),
    "cat of two dtypes": lambda x: torch.cat([x @ weight(4, 4), x]),
    "scaled_dot_product_attention": lambda x: functional.scaled_dot_product_attention(
        x[None, None], x.cos()[None, None], x.sin()[None, None]
    ),
    "avg_pool2d": lambda x: functional.avg_pool2d((x @ weight(4, 4))[None], 2),
    "gelu": lambda x: functional.gelu(x @ weight(4, 4)),
    "LSTM": lstm,
    "TransformerEncoderLayer": LAYER,
}
TOLERANCE = {torch.bfloat16: 4e-2, torch.float16: 1e-2}


def under(dtype, operator):
    def inside(x):
        with torch.autocast("cpu", dtype=dtype):
            return operator(x)

    return inside


def rows_of(dtype):
    xs = (sample(3, 3, 4, dtype=torch.float32) / 2,)
    name = str(dtype).removeprefix("torch.")
    return [
        each
        for operator, func in OPERATORS.items()
        for each in uses(
            FEATURE, f"{name}: {operator}", under(dtype, func), xs, WAYS, tolerance=TOLERANCE[dtype]
        )
    ]


def around(transform):
    """Autocast around a transform, rather than inside the function."""

    def compute(F):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return transform(F)(sample(3, 3, 4, dtype=torch.float32) / 2)

    return compute


def operator(x):
    return functional.linear(x, weight(5, 4)).softmax(-1)


def nested(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ weight(4, 4)
        with torch.autocast("cpu", enabled=False):
            return y.float() @ weight(4, 4), y


AROUND = {
    "vmap": lambda F: F.vmap(operator),
    "vmap(grad)": lambda F: F.vmap(F.grad(lambda x: operator(x).sin().sum())),
    "grad(vmap)": lambda F: F.grad(lambda x: F.vmap(operator)(x).sin().sum()),
    "jvp": lambda F: lambda x: F.jvp(operator, (x,), (x.cos(),)),
    "jacrev": lambda F: F.jacrev(operator),
}

ROWS = [
    *rows_of(torch.bfloat16),
    *rows_of(torch.float16),
    *uses(FEATURE, "turned off inside", nested, (sample(3, 3, 4, dtype=torch.float32),), WAYS,
          tolerance=4e-2),
    *(row(FEATURE, "around the transform", way, around(transform), tolerance=4e-2)
      for way, transform in AROUND.items()),
]  # fmt: skip
