"""no_grad, enable_grad and inference_mode in and around transforms; detach, in-place ops, views."""

import torch

from test.composing.rows import BOTH, REVERSE, TWICE, row, sample, total, uses

FEATURE = "Grad modes, detach, in-place operators and views"
XS = (sample(4, 3),)


def no_grad_inside(x):
    with torch.no_grad():
        factor = x.sin()
    return factor * x


def enable_grad_inside_no_grad(x):
    with torch.no_grad():
        factor = x.sin()
        with torch.enable_grad():
            y = x.exp()
    return factor * y


def set_grad_enabled_inside(x):
    with torch.set_grad_enabled(False):
        factor = x.cos()
    return factor * x.exp()


@torch.no_grad()
def decorated(x):
    return x.sin()


def inference_mode_inside(x):
    with torch.inference_mode():
        shift = x.sin()
    return x.exp() + shift


def inference_mode_plain(x):
    return x.exp() + x.detach().sin()


def detached(x):
    return x.detach() * x.sin()


def detached_in_place(x):
    y = x.sin()
    y.detach_()
    return y * x


def in_place(x):
    y = x.clone()
    y.mul_(2).sin_().add_(x)
    y[0] = x[1] * 3
    y[1:] += x[:-1]
    return y


def views(x):
    y = x.sin()
    y.view(3, 1)[1:].mul_(x.reshape(3, 1)[:-1])
    first, second = y.narrow(0, 0, 1), y.narrow(0, 1, 2)
    second.unsqueeze(0).transpose(0, 1)[0].add_(first)
    y.t().select(0, 0).cos_()
    return y * x


def view_before_write(x):
    y = x.sin()
    z = y.view(-1)
    y.mul_(x)
    return z * y


def metadata_in_place(x):
    y = (x * 2).unsqueeze_(0).t_().squeeze_(1).unsqueeze_(-1)
    return y.transpose_(0, 1) * x


def writes_to_input(x):
    x.mul_(3)
    return x.sin()


def written_input_plain(x):
    return (x * 3).sin()


def masked_fill(x):
    return (x * 1).masked_fill_(x > 0, 2.0) * x


def boolean_mask_write(x):
    y = x * 1
    y[y > 0] = 0
    return y * x


def boolean_mask_write_plain(x):
    return torch.where(x > 0, 0.0, x) * x


def index_put(x):
    y = x.sin()
    y[torch.tensor([0, 2])] = x[:2] * 5
    return y


def copied(x):
    y = x.new_empty(3)
    y.copy_(x.sin())
    return y * x


def overwritten(x):
    y = x.sin()
    z = y * 2
    y.add_(1)
    return z + y


def product(weight, x):
    return (weight * x).sin().sum()


def around(context, transform):
    def compute(F):
        with context():
            result = transform(F)(XS[0])
            flags = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        return result, flags

    def by_hand():
        from test.composing import reference

        with context():
            flags = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        return transform(reference)(XS[0]), flags

    return compute, by_hand


TRANSFORMS = {
    "grad": lambda F: F.grad(total(torch.exp)),
    "vmap(grad)": lambda F: F.vmap(F.grad(total(torch.exp))),
    "grad(vmap)": lambda F: F.grad(total(F.vmap(torch.exp))),
    "grad(grad)": lambda F: F.grad(total(F.grad(total(torch.exp)))),
    "vmap(grad), weights shared": lambda F: lambda x: F.vmap(F.grad(product), (None, 0))(x[0], x),
    "jvp": lambda F: lambda x: F.jvp(torch.exp, (x,), (x,)),
    "vjp": lambda F: lambda x: F.vjp(torch.exp, x)[1](x),
    "jacrev": lambda F: F.jacrev(torch.exp),
    "jacfwd": lambda F: F.jacfwd(torch.exp),
    "hessian": lambda F: F.hessian(total(torch.exp)),
    "vmap": lambda F: F.vmap(torch.exp),
}


def leaves_no_graph(F):
    """Inside no_grad the result of a transform doesn't depend on outer parameters."""
    w = sample(3, seed=3).requires_grad_()
    with torch.no_grad():
        inside = F.vmap(F.grad(lambda x: (x * w).sin().sum()))(XS[0])
    outside = F.vmap(F.grad(lambda x: (x * w).sin().sum()))(XS[0])
    return inside, inside.requires_grad, outside.requires_grad


def leaves_no_graph_plain():
    expected = sample(3, seed=3) * (XS[0] * sample(3, seed=3)).cos()
    return expected, False, True


def no_grad_between(F):
    """no_grad between two transforms cuts the outer one's dependence."""

    def outer(x):
        with torch.no_grad():
            inner = F.grad(lambda y: (y.sin() * x).sum())(x)
        return (inner * x).sum()

    return F.grad(outer)(XS[0][0]), F.vmap(F.grad(outer))(XS[0])


def no_grad_between_plain():
    x = XS[0]
    return x[0] * x[0].cos(), x * x.cos()


def no_grad_in_forward_mode(F):
    """no_grad doesn't stop tangents, as in PyTorch's forward mode."""
    return F.jvp(no_grad_inside, (XS[0][0],), (XS[0][1],))


def no_grad_in_forward_mode_plain():
    x, v = XS[0][0], XS[0][1]
    return x.sin() * x, v * (x.cos() * x + x.sin())


def requires_grad_flags(F):
    seen = []

    def func(x):
        with torch.no_grad():
            seen.append((x * 2).requires_grad)
        seen.append((x * 2).requires_grad)
        seen.append(x.detach().requires_grad)
        return x.sum()

    F.grad(func)(XS[0][0])
    return seen


def functions(name, func, ways=REVERSE, plain=None):
    return uses(FEATURE, name, func, XS, ways, plain=plain)


ROWS = [
    *functions("no_grad inside", no_grad_inside, TWICE),
    *functions("enable_grad inside no_grad", enable_grad_inside_no_grad, TWICE),
    *functions("set_grad_enabled inside", set_grad_enabled_inside),
    *functions("a function decorated with no_grad", lambda x: decorated(x) * x),
    *functions("inference_mode inside", inference_mode_inside, plain=inference_mode_plain),
    *functions("detach", detached, TWICE),
    *functions("detach_", detached_in_place),
    row(FEATURE, "no_grad inside", "jvp", no_grad_in_forward_mode, no_grad_in_forward_mode_plain),
    row(FEATURE, "no_grad inside", "grad, and a graph outside", leaves_no_graph,
        leaves_no_graph_plain),
    row(FEATURE, "no_grad inside", "between two grads", no_grad_between, no_grad_between_plain),
    row(FEATURE, "no_grad inside", "requires_grad of results", requires_grad_flags,
        lambda: [False, True, False]),
    *(
        row(FEATURE, f"{name} around", way, *around(context, transform))
        for name, context in (
            ("no_grad", torch.no_grad),
            ("inference_mode", torch.inference_mode),
            ("enable_grad", torch.enable_grad),
        )
        for way, transform in TRANSFORMS.items()
    ),
    *functions("in-place operators", in_place, BOTH),
    *functions("views written to", views, BOTH),
    *functions("a view taken before the write", view_before_write, BOTH),
    *functions("unsqueeze_, t_, squeeze_, transpose_", metadata_in_place, BOTH),
    *functions("an in-place write to the input", writes_to_input, plain=written_input_plain),
    *functions("masked_fill_", masked_fill, BOTH),
    *functions("a[a > 0] = 0", boolean_mask_write, BOTH, plain=boolean_mask_write_plain),
    *functions("a[indices] = b", index_put, BOTH),
    *functions("copy_ into x.new_empty", copied, BOTH),
    *functions("an operand written to later", overwritten, BOTH),
]  # fmt: skip
