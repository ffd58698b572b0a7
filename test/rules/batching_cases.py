"""The table of test_batching_rules: operators with makers of their arguments, a family at a time.

A maker is a function without arguments that returns a fresh random tensor, so that every sample of
a batch gets different data.
"""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F

from test.oracle import rand


class Argument(NamedTuple):
    make: object
    written: bool = False  # the case writes to it: it has to be batched
    constant: bool = False  # PyTorch has no derivative with respect to it


class Case(NamedTuple):
    function: object
    arguments: tuple


FAMILIES = {}


def family(name, cases):
    for case_name, (function, *makers) in cases.items():
        arguments = (make if isinstance(make, Argument) else Argument(make) for make in makers)
        FAMILIES[f"{name}: {case_name}"] = Case(function, tuple(arguments))


def written(make):
    return Argument(make, written=True)


def constant(make):
    return Argument(make, constant=True)


def t(*shape, dtype=torch.float64):
    return lambda: rand(*shape).to(dtype)


def unit(*shape):
    """Numbers strictly between 0 and 1."""
    return lambda: 0.05 + 0.9 * torch.rand(shape, dtype=torch.float64)


def ints(high, *shape, dtype=torch.int64):
    return lambda: torch.randint(high, shape, dtype=dtype)


def bools(*shape):
    return lambda: torch.rand(shape) < 0.5


def lengths(total, parts):
    """`parts` lengths that add up to `total`."""

    def make():
        cuts = torch.randint(total + 1, (parts - 1,)).sort().values
        edges = torch.cat([torch.zeros(1, dtype=torch.int64), cuts, torch.tensor([total])])
        return edges.diff()

    return make


def permutation(n):
    return lambda: torch.randperm(n)


def probabilities(*shape):
    return lambda: rand(*shape).softmax(-1)


def regular(n):
    """A well-conditioned square matrix."""
    return lambda: rand(n, n) + 3 * n**0.5 * torch.eye(n, dtype=torch.float64)


def positive_definite(n):
    def make():
        root = rand(n, n)
        return root @ root.T + n * torch.eye(n, dtype=torch.float64)

    return make


def symmetric(function):
    return lambda a, *rest: function(a + a.mT, *rest)


UNARY = """abs acos acosh angle asin asinh atan atanh bitwise_not ceil cos cosh deg2rad digamma erf
erfc erfinv exp exp2 expm1 floor frac isfinite isinf isnan lgamma log log10 log1p log2 logical_not
logit neg positive rad2deg reciprocal relu round rsqrt sgn sigmoid sign signbit sin sinc sinh sqrt
square tan tanh trunc nan_to_num""".split()
WHOLE = {"bitwise_not": ints(9, 3, 2), "acosh": lambda: 1.5 + torch.rand(3, 2).double()}
family(
    "unary",
    {name: (getattr(torch, name), WHOLE.get(name, unit(3, 2))) for name in UNARY},
)
ACTIVATIONS = """celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish
relu6 selu silu softplus softshrink tanhshrink""".split()
family("activation", {name: (getattr(F, name), t(3, 4)) for name in ACTIVATIONS})
family(
    "activation",
    {"threshold": (lambda x: F.threshold(x, 0.1, 2.0), t(3, 4)), "prelu": (F.prelu, t(2, 3), t(3))},
)

BINARY = """add sub mul div atan2 copysign eq ne lt le gt ge fmax fmin fmod remainder hypot
logaddexp logaddexp2 logical_and logical_or logical_xor maximum minimum xlogy heaviside nextafter
floor_divide true_divide rsub""".split()
family("binary", {name: (getattr(torch, name), unit(3, 2), unit(3, 2)) for name in BINARY})
SMALL = ints(5, 3, 2)
family(
    "binary",
    {
        "pow": (torch.pow, unit(3, 2), unit(3, 2)),
        "pow of a number": (lambda x: 2.0**x + x**3, unit(3, 2)),
        "broadcast": (torch.mul, t(3, 1, 2), t(4, 1)),
        "broadcast of ranks": (torch.add, t(2), t(3, 4, 2)),
        "broadcast of a scalar": (torch.sub, t(), t(3, 2)),
        "alpha": (lambda x, y: torch.add(x, y, alpha=3), t(3), t(2, 3)),
        "number": (lambda x: 1 - (x * 2 + 1) / 3, t(3)),
        "bitwise": (lambda x, y: (x & y) | (x ^ y), SMALL, SMALL),
        "shift": (lambda x, y: (x << y) >> 1, SMALL, SMALL),
        "gcd": (torch.gcd, SMALL, SMALL),
        "integer division": (lambda x, y: (x // (y + 1), x % (y + 1)), SMALL, SMALL),
        "lerp": (torch.lerp, t(3), t(3), t(3)),
        "addcmul": (lambda x, y, z: torch.addcmul(x, y, z, value=2), t(3, 2), t(2), t(3, 1)),
        "addcdiv": (torch.addcdiv, t(3, 2), t(2), unit(3, 2)),
        "clamp": (lambda x: x.clamp(-0.5, 0.5), t(3, 2)),
        "clamp of tensors": (torch.clamp, t(3, 2), lambda: -unit(2)(), unit(3, 1)),
        "where": (torch.where, bools(3, 1), t(3, 2), t(2)),
        "where with numbers": (lambda c: torch.where(c, 1.0, -1.0), bools(3, 2)),
        "masked_fill": (lambda x, m: x.masked_fill(m, -1.0), t(3, 2), bools(2)),
        "masked_fill of a tensor": (torch.masked_fill, t(3, 2), bools(3, 2), t()),
    },
)
family(
    "in place",
    {
        "add_": (lambda x, y: x.clone().add_(y), written(t(3, 2)), t(2)),
        "mul_ div_": (lambda x, y: x.clone().mul_(y).div_(2), written(t(3, 2)), t(3, 1)),
        "sin_ exp_": (lambda x: x.clone().sin_().exp_(), t(3, 2)),
        "clamp_": (lambda x: x.clone().clamp_(min=0), t(3, 2)),
        "copy_": (lambda x, y: x.clone().copy_(y), written(t(3, 2)), t(2)),
        "zero_ fill_": (lambda x, y: (x.clone().zero_(), x.clone().fill_(y)), written(t(3)), t()),
        "masked_fill_": (lambda x, m: x.clone().masked_fill_(m, 2), written(t(3)), bools(3)),
        "rank grows": (lambda x, y: x.clone().mul_(y), written(t(3, 2)), t()),
        "slice": (lambda x, y: x.clone()[1:].add_(y), written(t(3, 2)), t(2)),
        "set slice": (lambda x, y: set_item(x, (slice(1), 0), y), written(t(3, 2)), t()),
        "set row": (lambda x, y: set_item(x, 1, y), written(t(3, 2)), t(2)),
        "transpose_": (lambda x: x.clone().t_().squeeze_().unsqueeze_(0), t(3, 2)),
    },
)


def set_item(x, index, value):
    x = x.clone()
    x[index] = value
    return x


F32, I32, I64 = torch.float32, torch.int32, torch.int64
family(
    "promotion",
    {
        "float32 with a float64 scalar": (torch.add, t(3, dtype=F32), t()),
        "float64 scalar first": (torch.mul, t(), t(3, dtype=F32)),
        "scalar with scalar": (torch.add, t(dtype=F32), t()),
        "int with float scalar": (torch.add, ints(9, 3), t(dtype=F32)),
        "int with float64 scalar": (torch.mul, ints(9, 3), t()),
        "int32 with int64 scalar": (torch.add, ints(9, 3, dtype=I32), ints(9)),
        "int32 with int64": (torch.add, ints(9, 3, dtype=I32), ints(9, 3)),
        "bool with int": (torch.add, bools(3), ints(9)),
        "bool with bool": (torch.add, bools(3), bools(3)),
        "float with complex scalar": (torch.mul, t(3, dtype=F32), t(dtype=torch.complex128)),
        "number": (lambda x: (x + 1, x + 1.5, x * 2, x / 2), ints(9, 3)),
        "comparison": (torch.lt, ints(9, 3), t()),
        "where": (torch.where, bools(3), t(3, dtype=F32), t()),
        "cat": (lambda x, y: torch.cat([x, y]), t(3, dtype=F32), ints(9, 2)),
        "stack": (lambda x, y: torch.stack([x, y]), t(3, dtype=F32), t(3)),
        "in place keeps the dtype": (
            lambda x, y: x.clone().add_(y),
            written(t(3, dtype=F32)),
            t(3),
        ),
        "sum of bool and int": (lambda x, y: (x.sum(), y.sum(0)), bools(3), ints(9, 3, dtype=I32)),
        "cumsum of int32": (lambda x: x.cumsum(0), ints(9, 3, dtype=I32)),
        "sqrt of int": (torch.sqrt, ints(9, 3)),
        "pow": (torch.pow, ints(4, 3), t(dtype=F32)),
        "to": (lambda x: (x.to(F32), x.to(I64), x.bool(), x.type_as(x)), t(3)),
    },
)

DIMS = {"0": 0, "-1": -1, "both": (0, 1), "all": None}
REDUCTIONS = {
    f"{name} over {label}": (functools.partial(getattr(torch, name), dim=dim), t(3, 4))
    for name in "sum mean var std amax amin logsumexp nansum all any count_nonzero".split()
    for label, dim in DIMS.items()
    if not (name in ("amax", "amin", "logsumexp", "count_nonzero") and dim is None)
}
family("reduction", REDUCTIONS)
family(
    "reduction",
    {
        "keepdim": (lambda x: x.sum(0, keepdim=True) + x.mean((0, -1), keepdim=True), t(3, 4)),
        "of a scalar": (lambda x: (x.sum(), x.sum(0), x.amax(-1), x.mean()), t()),
        "sum dtype": (lambda x: x.sum(0, dtype=F32), ints(9, 3)),
        "var unbiased": (lambda x: torch.var_mean(x, 0, correction=0), t(3, 4)),
        "prod": (lambda x: (x.prod(), x.prod(0), x.prod(-1, keepdim=True)), t(3, 4)),
        "norm": (lambda x: (x.norm(), x.norm(dim=0), x.norm(1, -1)), t(3, 4)),
        "vector_norm": (lambda x: torch.linalg.vector_norm(x, 3, dim=(0, 1)), t(3, 4)),
        "max": (lambda x: (x.max(), x.max(0), x.min(-1), x.min()), t(3, 4)),
        "argmax": (lambda x: (x.argmax(), x.argmax(0), x.argmin(-1)), t(3, 4)),
        "median": (lambda x: (x.median(0), x.median(-1)), t(3, 5)),
        "cumsum": (lambda x: (x.cumsum(0), x.cumsum(-1)), t(3, 4)),
        "cumprod": (lambda x: (x.cumprod(0), x.cumprod(-1)), t(3, 4)),
        "cummax": (lambda x: (x.cummax(0), x.cummin(-1)), t(3, 4)),
        "logcumsumexp": (lambda x: x.logcumsumexp(0), t(3, 4)),
        "sort": (lambda x: (x.sort(0), x.sort(-1, descending=True)), t(3, 4)),
        "argsort": (lambda x: x.argsort(0), t(3, 4)),
        "topk": (lambda x: (x.topk(2, 0), x.topk(2, -1, largest=False)), t(3, 4)),
        "kthvalue": (lambda x: x.kthvalue(2, 0), t(3, 4)),
        "softmax": (lambda x: (x.softmax(0), x.softmax(-1)), t(3, 4)),
        "log_softmax": (lambda x: (x.log_softmax(0), x.log_softmax(-1)), t(3, 4)),
        "softmax of a scalar": (lambda x: (x.softmax(0), x.log_softmax(-1)), t()),
        "softmin": (lambda x: F.softmin(x, 0), t(3, 4)),
        "glu": (lambda x: (F.glu(x, 0), F.glu(x, -1)), t(4, 2)),
        "cdist": (torch.cdist, t(3, 4), t(2, 4)),
        "cosine_similarity": (lambda x, y: F.cosine_similarity(x, y, 0), t(3, 4), t(3, 4)),
        "normalize": (lambda x: F.normalize(x, dim=0), t(3, 4)),
    },
)
