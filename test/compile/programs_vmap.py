"""``vmap``: dimensions, containers, closures, randomness, writes."""

import torch
from torch import nn

from test.compile.corpus import program, rand


@program
def pointwise(t):
    return lambda x: t.F.vmap(torch.sin)(x) + 1, (rand(3, 4),)


@program
def made_before(t):
    return t.F.vmap(lambda x: x.sin().sum()), (rand(3, 4),)


@program
def dot(t):
    return lambda x, y: t.F.vmap(torch.dot)(x, y), (rand(3, 5), rand(3, 5))


@program
def in_dims(t):
    f = lambda x, y: t.F.vmap(torch.mv, in_dims=(2, None))(x.unsqueeze(1).squeeze(1), y)
    return f, (rand(3, 5, 4), rand(5))


@program
def negative_dims(t):
    return lambda x: t.F.vmap(lambda x: x.cumsum(0), in_dims=-1, out_dims=-1)(x), (rand(3, 4),)


@program
def out_dims_of_tuple(t):
    f = lambda x: t.F.vmap(lambda x: (x * 2, x.outer(x)), out_dims=(0, 2))(x)
    return f, (rand(3, 4),)


@program
def containers(t):
    def f(x, y):
        mapped = t.F.vmap(lambda d: {"a": d["x"].sin(), "b": (d["y"][0], d["y"][1] + d["x"])})
        return mapped({"x": x, "y": [y, x]})

    return f, (rand(3, 4), rand(3, 4))


@program
def in_dims_of_dict(t):
    f = lambda x, y: t.F.vmap(lambda d: d["x"] @ d["y"], in_dims=({"x": 0, "y": None},))(
        {"x": x, "y": y}
    )
    return f, (rand(3, 4), rand(4, 2))


@program
def closure_over_argument(t):
    return lambda x, w: t.F.vmap(lambda x: w @ x)(x).sum(0), (rand(3, 4), rand(2, 4))


@program
def closure_over_computed(t):
    def f(x, w):
        scaled = w.tanh() * 3
        return t.F.vmap(lambda x: scaled @ x)(x.cos())

    return f, (rand(3, 4), rand(2, 4))


@program
def closure_over_global(t):
    return lambda x: t.F.vmap(lambda x: x * _WEIGHT)(x), (rand(3, 4),)


_WEIGHT = rand(4)


@program
def closure_over_parameter(t):
    layer = nn.Linear(4, 2).double()
    return lambda x: t.F.vmap(lambda x: layer(x).relu())(x), (rand(3, 4),)


@program
def keyword_arguments(t):
    f = lambda x, y: t.F.vmap(lambda x, scale, y: x * scale + y)(x, scale=2.5, y=y)
    return f, (rand(3, 4), rand(3, 4)) if t.F.__name__ == "torch.func" else (rand(3, 4), rand(4))


@program
def chunks(t):
    return lambda x: t.F.vmap(lambda x: x.sin().sum(), chunk_size=2)(x), (rand(5, 4),)


@program
def number_argument(t):
    return lambda x: t.F.vmap(lambda x, n: x**n, in_dims=(0, None))(x, 3), (rand(5, 4),)


@program
def twice(t):
    return lambda x, y: t.F.vmap(t.F.vmap(torch.dot, (0, None)), (None, 0))(x, y), (
        rand(3, 5),
        rand(4, 5),
    )


@program
def inner_closes_over_outer(t):
    f = lambda x, y: t.F.vmap(lambda a: t.F.vmap(lambda b: (a * b).sum())(y))(x)
    return f, (rand(3, 5), rand(4, 5))


@program
def different_draws(t):
    f = lambda x: t.F.vmap(lambda x: x + torch.randn_like(x), randomness="different")(x)
    return f, (rand(3, 4),)


@program
def same_draws(t):
    f = lambda x: t.F.vmap(lambda x: x * torch.rand(4), randomness="same")(x)
    return f, (rand(3, 4),)


@program
def dropout(t):
    f = lambda x: t.F.vmap(lambda x: nn.functional.dropout(x, 0.5), randomness="different")(x)
    return f, (rand(30, 4),)


@program
def out_dims_none(t):
    f = lambda x, y: t.F.vmap(lambda x, y: (x * y, y.sin()), (0, None), (0, None))(x, y)
    return f, (rand(3, 4), rand(4))


@program
def writes_to_itself(t):
    def sample(x):
        y = x.clone()
        y[0] = 1
        y.mul_(2).add_(x)
        return y

    return lambda x: t.F.vmap(sample)(x), (rand(3, 4),)


@program
def writes_to_argument(t):
    def f(x):
        y = x * 1
        t.F.vmap(lambda x: x.mul_(2))(y)
        return y + 1

    return f, (rand(3, 4),)


@program
def writes_to_made_inside(t):
    def sample(x):
        y = x.new_zeros(4)
        y[1:3] = x[:2]
        return y

    return lambda x: t.F.vmap(sample)(x), (rand(3, 4),)


@program
def loop(t):
    def sample(x):
        for i in range(3):
            x = x.sin() * (i + 1)
        return x

    return lambda x: t.F.vmap(sample)(x), (rand(3, 4),)


@program
def control_flow_on_shape(t):
    f = lambda x: t.F.vmap(lambda x: x.sin() if x.shape[0] == 4 and x.dim() == 1 else x.cos())(x)
    return f, (rand(3, 4),)


@program
def linalg(t):
    return lambda x: t.F.vmap(lambda a: torch.linalg.solve(a + 5 * torch.eye(3), a[0]))(x), (
        rand(4, 3, 3),
    )


@program
def convolution(t):
    f = lambda x, w: t.F.vmap(nn.functional.conv1d)(x, w)
    return f, (rand(3, 1, 2, 8), rand(3, 4, 2, 3))


@program
def attention(t):
    f = lambda x: t.F.vmap(lambda x: nn.functional.scaled_dot_product_attention(x, x, x))(x)
    return f, (rand(3, 2, 5, 4),)


@program
def where(t):
    return lambda x: t.F.vmap(lambda x: torch.where(x.sum() > 0, x, -x))(x), (rand(6, 4),)


@program
def indexing(t):
    f = lambda x, i: t.F.vmap(lambda x, i: x[i])(x, i)
    return f, (rand(3, 4), torch.tensor([[0, 1], [2, 2], [3, 0]]))


@program
def gradient_of_result(t):
    def f(x, w):
        t.F.vmap(lambda x: (w * x).sin().sum())(x).sum().backward()
        return x * 1

    return f, (rand(3, 4).requires_grad_(), rand(4).requires_grad_())


@program
def backward_outside(t):
    def f(x, w):
        return t.F.vmap(lambda x: (w * x).sin().sum())(x).sum()

    return f, (rand(3, 4).requires_grad_(), rand(4).requires_grad_())


@program
def partial_function(t):
    import functools

    f = lambda x: t.F.vmap(functools.partial(torch.add, alpha=2), (0, 0))(x, x)
    return f, (rand(3, 4),)


@program
def method_of_object(t):
    class Scaled:
        def __init__(self, scale):
            self.scale = scale

        def apply(self, x):
            return x * self.scale

    scaled = Scaled(rand(4))
    return lambda x: t.F.vmap(scaled.apply)(x), (rand(3, 4),)
