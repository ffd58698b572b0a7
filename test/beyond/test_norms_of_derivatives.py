"""Norms of gradients where a layer that has a formula is differentiated inside the model too."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import functorch_ext as fx

F = nn.functional
WIDTH, SAMPLES = 128, 3  # wide enough for formulas


class Wide(nn.Module):
    """Two layers, used as a function says."""

    def __init__(self, body):
        super().__init__()
        self.body, self.first, self.second = body, nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.body(self, x)

    def both(self, x):
        return self.second(self.first(x).tanh())


def product(output, target):
    return (output * target).sum() + 0.1 * (output * output).sum()


def of_each(model, batch, targets):
    """The samples' gradients, in a loop of plain autograd."""
    parameters = dict(model.named_parameters())
    for x, target in zip(batch.split(1), targets.split(1), strict=True):
        loss = product(model(x), target)
        given = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
        yield dict(zip(parameters, given, strict=True))


def check(model, dtype=torch.float64, **tolerances):
    torch.manual_seed(2)
    model = model.to(dtype)
    batch, targets = (torch.randn(SAMPLES, WIDTH, dtype=dtype) for _ in range(2))
    samples = [*of_each(model, batch, targets)]
    squares = [sum(g.double().square().sum() for g in each.values()) for each in samples]
    norms = torch.stack(squares).sqrt()
    bound = norms.median().item()
    scales = (bound / norms).clamp(max=1.0)
    pairs = [*zip(scales, samples, strict=True)]
    sums = {n: sum(s * each[n].double() for s, each in pairs) for n in samples[0]}
    of_norms = fx.per_sample_grad_norms(model, product)
    for _ in range(2):
        got = of_norms(batch, targets)
        assert got.dtype == dtype
        assert_close(got.double(), norms, **tolerances)
    for chunk_size in (None, 2):
        clipped = fx.clipped_grad_sum(model, product, bound, chunk_size=chunk_size)
        got = clipped(batch, targets)
        assert {each.dtype for each in got.values()} == {dtype}
        assert_close({n: each.double() for n, each in got.items()}, sums, **tolerances)


def autograd_inside(model, x):
    with torch.enable_grad():
        y = x.clone().requires_grad_()
        return torch.autograd.grad(model.both(y).sin().sum(), y, create_graph=True)[0]


def backward_of_pullback(model, x):
    output, pullback = fx.vjp(model.both, x)
    return output + pullback(x.sin())[0]


DERIVATIVES = {
    "grad": lambda m, x: fx.grad(lambda y: m.both(y).sin().sum())(x),
    "vjp": backward_of_pullback,
    "jvp": lambda m, x: fx.jvp(m.both, (x,), (x.cos(),))[1],
    "jacrev": lambda m, x: fx.jacrev(lambda y: m.both(y).sum(1))(x).reshape(1, WIDTH),
    "jacfwd": lambda m, x: fx.jacfwd(m.both)(x).reshape(WIDTH, WIDTH).sum(0, keepdim=True),
    "linearize": lambda m, x: m.second(x) * fx.linearize(lambda y: m.first(y).tanh(), x)[1](x),
    "autograd.grad": autograd_inside,
    "laplacian": lambda m, x: m.second(x) * fx.laplacian(lambda y: m.first(y).tanh().sum())(x),
    "vmap": lambda m, x: fx.vmap(lambda k: m.both(x * k))(x.new_tensor([1.0, 2.0])).sum(0),
}  # fmt: skip


@pytest.mark.parametrize("name", DERIVATIVES)
def test_transforms_inside_the_model(name):
    check(Wide(DERIVATIVES[name]))


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, cotangent):
        x, weight = ctx.saved_tensors
        return cotangent @ weight, cotangent.T @ x


by_pullback = fx.custom_vjp(lambda x, weight: x @ weight.T)
by_pullback.defvjp(
    lambda x, weight: (x @ weight.T, (x, weight)),
    lambda saved, cotangent: (cotangent @ saved[1], cotangent.T @ saved[0]),
)
by_tangents = fx.custom_jvp(lambda x, weight: x @ weight.T)
by_tangents.defjvp(
    lambda primals, tangents: (
        primals[0] @ primals[1].T,
        tangents[0] @ primals[1].T + primals[0] @ tangents[1].T,
    )
)


def a_step_inside(model, x):
    weight = model.second.weight
    step = fx.grad(lambda w: F.linear(x, w).sin().sum())(weight)
    return F.linear(model.first(x), weight - 0.1 * step)


ELSEWHERE = {
    "autograd.Function": lambda m, x: Product.apply(m.first(x).tanh(), m.second.weight),
    "and a layer": lambda m, x: Product.apply(m.both(x).tanh(), m.second.weight),
    "custom_vjp": lambda m, x: by_pullback(m.first(x).tanh(), m.second.weight),
    "custom_jvp": lambda m, x: by_tangents(m.first(x).tanh(), m.second.weight),
    "vmap": lambda m, x: m.first(x) * fx.vmap(lambda w: w.sin().sum())(m.second.weight),
    "grad": a_step_inside,
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_weights_that_other_code_gets(name):
    check(Wide(ELSEWHERE[name]))


@pytest.mark.parametrize("name", ["grad", "autograd.grad", "vmap"])
def test_under_another_vmap(name):
    torch.manual_seed(3)
    model = Wide(DERIVATIVES[name]).double()
    batches, targets = (torch.randn(2, SAMPLES, WIDTH).double() for _ in range(2))
    got = fx.vmap(fx.per_sample_grad_norms(model, product))(batches, targets)
    for norms, batch, goals in zip(got, batches, targets, strict=True):
        for norm, each in zip(norms, of_each(model, batch, goals), strict=True):
            assert_close(norm, sum(g.square().sum() for g in each.values()).sqrt())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_in_half_precision(dtype):
    check(Wide(Wide.both), dtype, rtol=5e-2, atol=1.0)


def test_another_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        check(Wide(Wide.both), torch.float32, rtol=1e-4, atol=1e-3)
    finally:
        torch.set_default_dtype(torch.float32)


def test_autocast():
    torch.manual_seed(4)
    model, batch, targets = Wide(Wide.both), *torch.randn(2, SAMPLES, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        samples = [*of_each(model, batch, targets)]
        got = fx.clipped_grad_sum(model, product, 1e9)(batch, targets)
        norms = fx.per_sample_grad_norms(model, product)(batch, targets)
    sums = {name: sum(each[name] for each in samples) for name in samples[0]}
    assert_close(got, sums, rtol=5e-2, atol=1.0)
    squares = [sum(g.square().sum() for g in each.values()) for each in samples]
    assert_close(norms, torch.stack(squares).sqrt(), rtol=5e-2, atol=0.1)
