"""In-place writes of samples into tensors that are made inside vmap."""

import torch

from test.composing.rows import row, sample, uses

FEATURE = "In-place writes into tensors made inside vmap"
XS = (sample(4, 3),)
WAYS = ("vmap", "vmap(grad)", "grad(vmap)", "jvp(vmap)")


def made(factory, write=lambda out, x: out.add_(x)):
    def func(x):
        out = factory(x)
        write(out, x)
        return out * x

    return func


OPTIONS = {"dtype": torch.float64}
SHARED = sample(3, seed=5)
FACTORIES = {
    "zeros": lambda x: torch.zeros(3, **OPTIONS),
    "ones": lambda x: torch.ones(3, **OPTIONS),
    "full": lambda x: torch.full((3,), 2.0, **OPTIONS),
    "arange": lambda x: torch.arange(3.0, **OPTIONS),
    "linspace": lambda x: torch.linspace(0, 1, 3, **OPTIONS),
    "eye": lambda x: torch.eye(3, **OPTIONS),
    "tensor": lambda x: torch.tensor([1.0, 2.0, 3.0], **OPTIONS),
    "new_zeros of a sample": lambda x: x.new_zeros(3),
    "new_full of a shared tensor": lambda x: SHARED.new_full((3,), 2.0),
    "zeros_like of a sample": lambda x: torch.zeros_like(x),
    "zeros_like of a shared tensor": lambda x: torch.zeros_like(SHARED),
    "clone of a shared tensor": lambda x: SHARED.clone(),
    "detached clone of a shared tensor": lambda x: (SHARED * 2).detach().clone(),
    "torch.clone of arithmetic on a shared tensor": lambda x: torch.clone(SHARED * 2),
    "arithmetic on a shared tensor": lambda x: SHARED * 2,
    "arithmetic on zeros": lambda x: torch.zeros(3, **OPTIONS) + 1,
}


def set_items(out, x):
    for i in range(3):
        out[i] = x[2 - i]


def set_slice(out, x):
    out[1:] = x[:2]


def through_views(out, x):
    out.view(3, 1).t()[0, 1:].mul_(x[1:])


def copied(out, x):
    out.copy_(x)


def index_put(out, x):
    out[torch.tensor([0, 2])] = x[:2]


def index_add(out, x):
    out.index_add_(0, torch.tensor([2, 0, 2]), x)


def scatter(out, x):
    out.scatter_(0, torch.tensor([2, 0, 1]), x)


def out_argument(out, x):
    torch.mul(x, 3, out=out)


def filled_then_written(out, x):
    out.fill_(3)
    out[0] = x[0]
    out[1:].zero_()


def masked(out, x):
    out[x > 0] = 1.0


def cumulative(x):
    """A loop that fills a result, as programs do."""
    out = torch.empty(3, **OPTIONS)
    state = torch.zeros((), **OPTIONS)
    for i in range(3):
        state += x[i].sin()
        out[i] = state + x[i] ** 2
    return out


def table(x):
    out = torch.empty(3, 3, **OPTIONS)
    for i in range(3):
        out[:, i] = x * x[i]
    return out


def in_a_list(x):
    buffers = [torch.zeros(3, **OPTIONS) for _ in range(2)]
    for buffer in buffers:
        buffer += x
    return buffers[0] * buffers[1]


def nested(F):
    def inner(x, y):
        out = torch.zeros(3, **OPTIONS)
        out[0] = y.sum()
        out += x
        return out

    def outer(x):
        out = torch.zeros(3, **OPTIONS)
        out.add_(x)
        return F.vmap(inner, (None, 0))(out, XS[0].cos())

    return F.vmap(outer)(XS[0])


def made_between(F):
    """Made in the outer vmap, written to in the inner one with the outer one's samples."""

    def outer(x):
        out = torch.zeros(3, **OPTIONS)
        out.add_(x)
        return F.vmap(lambda y: out * y)(XS[0].cos())

    return F.vmap(outer)(XS[0])


def seen_by_alias(x):
    """Aliases taken before the first write see it."""
    out = torch.zeros(3, **OPTIONS)
    first, rest, flat = out[0], out[1:], out.view(-1)
    out.copy_(x)
    return first * rest.sum() * flat


WRITES = {
    "out[i] = x[j]": set_items,
    "out[1:] = x[:2]": set_slice,
    "through views": through_views,
    "copy_": copied,
    "out[indices] = x": index_put,
    "index_add_": index_add,
    "scatter_": scatter,
    "fill_, then a write, then zero_ of a view": filled_then_written,
    "out[x > 0] = 1": masked,
}
PLAIN = {"out[x > 0] = 1": lambda out, x: out.copy_(torch.where(x > 0, 1.0, out))}


def zeros(x):
    return torch.zeros(3, **OPTIONS)


ROWS = [
    *uses(FEATURE, "zeros: out=", made(zeros, out_argument), XS, ("vmap",)),
    *(each for name, factory in FACTORIES.items()
      for each in uses(FEATURE, f"{name}: add_", made(factory), XS, WAYS)),
    *(each for name, write in WRITES.items()
      for each in uses(FEATURE, f"zeros: {name}", made(zeros, write), XS, WAYS,
                       plain=made(zeros, PLAIN.get(name, write)))),
    *uses(FEATURE, "a result filled in a loop", cumulative, XS, WAYS),
    *uses(FEATURE, "columns filled in a loop", table, XS, WAYS),
    *uses(FEATURE, "a list of buffers", in_a_list, XS, WAYS),
    *uses(FEATURE, "aliases see the write", seen_by_alias, XS, WAYS),
    row(FEATURE, "nested vmaps", "vmap(vmap)", nested),
    row(FEATURE, "nested vmaps", "written outside, read inside", made_between),
]  # fmt: skip
