"""Rules of one's own, implicit differentiation, and what is combined across samples."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from benchmarks.beyond.case import OURS, PLAIN, Case, Runs
from benchmarks.peers import Peers
from functorch_ext import (
    all_gather,
    checkpoint,
    custom_jvp,
    custom_vjp,
    custom_vmap,
    fixed_point,
    grad,
    implicit_root,
    pmax,
    pmean,
    ppermute,
    psum,
    stop_gradient,
    vmap,
)


class _Clipped(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return cotangent.clamp(-1, 1)


def reverse_rule(peers: Peers) -> Runs:
    clipped = custom_vjp(lambda x: x.clone())
    clipped.defvjp(lambda x: (x.clone(), None), lambda _, cotangent: (cotangent.clamp(-1, 1),))
    x = torch.randn(10_000)

    def in_jax(jax: Any) -> Any:
        theirs = jax.custom_vjp(lambda x: x)
        theirs.defvjp(lambda x: (x, None), lambda _, g: (jax.numpy.clip(g, -1, 1),))
        return jax.grad(lambda x: (3 * theirs(x)).sum())

    total = lambda f: grad(lambda x: (3 * f(x)).sum())
    return {
        PLAIN: lambda: total(_Clipped.apply)(x),
        OURS: lambda: total(clipped)(x),
        **peers.jax(in_jax, x),
    }


def forward_rule(peers: Peers) -> Runs:
    plain = lambda x: torch.log1p(torch.exp(x))
    ruled = custom_jvp(plain)
    ruled.defjvp(lambda x, t: (plain(x[0]), t[0] * torch.sigmoid(x[0])))
    x = torch.randn(10_000)

    def in_jax(jax: Any) -> Any:
        theirs = jax.custom_jvp(lambda x: jax.numpy.log1p(jax.numpy.exp(x)))
        theirs.defjvp(lambda x, t: (theirs(x[0]), t[0] * jax.nn.sigmoid(x[0])))
        return jax.grad(lambda x: theirs(x).sum())

    return {
        PLAIN: lambda: grad(lambda x: plain(x).sum())(x),
        OURS: lambda: grad(lambda x: ruled(x).sum())(x),
        **peers.jax(in_jax, x),
    }


def batching_rule(peers: Peers) -> Runs:
    product = lambda a, b: a @ b
    ruled = custom_vmap(product)

    @ruled.def_vmap
    def rule(axis_size: int, in_batched: Any, a: Tensor, b: Tensor) -> Any:
        return torch.bmm(a, b), True

    a, b = torch.randn(64, 32, 32), torch.randn(64, 32, 32)
    return {PLAIN: lambda: vmap(product)(a, b), OURS: lambda: vmap(ruled)(a, b)}


def recomputed(peers: Peers) -> Runs:
    x, weights = torch.randn(512, 256), torch.randn(256, 256) / 16

    def block(x: Tensor) -> Tensor:
        for _ in range(4):
            x = torch.tanh(x @ weights).sin().exp().log1p()
        return x

    def gradient(block: Any) -> Any:
        def total(x: Tensor) -> Tensor:
            for _ in range(4):
                x = block(x)
            return x.sum()

        return lambda: grad(total)(x)

    def in_jax(jax: Any) -> Any:
        np = jax.numpy

        def block(x: Any, w: Any) -> Any:
            for _ in range(4):
                x = np.log1p(np.exp(np.sin(np.tanh(x @ w))))
            return x

        def total(x: Any, w: Any) -> Any:
            for _ in range(4):
                x = jax.checkpoint(block)(x, w)
            return x.sum()

        return jax.grad(total)

    again = checkpoint(block)
    return {
        PLAIN: gradient(block),
        OURS: gradient(again),
        **peers.jax(in_jax, x, weights),
    }


def equilibrium(peers: Peers, is_root: bool) -> Runs:
    w, x = 0.3 * torch.randn(32, 32) / 32**0.5, torch.randn(64, 32)
    layer = lambda z, w, x: torch.tanh(z @ w + x)

    def unrolled(w: Tensor) -> Tensor:
        z = torch.zeros(64, 32)
        for _ in range(60):
            z = layer(z, w, x)
        return z.square().sum()

    @implicit_root(lambda z, w, x: layer(z, w, x) - z)
    def solve(z: Tensor, w: Tensor, x: Tensor) -> Tensor:
        for _ in range(60):
            z = layer(z, w, x)
        return z

    def implicit(w: Tensor) -> Tensor:
        zeros = torch.zeros(64, 32)
        z = solve(zeros, w, x) if is_root else fixed_point(layer, zeros, w, x)
        return z.square().sum()

    return {PLAIN: lambda: grad(unrolled)(w), OURS: lambda: grad(implicit)(w)}


def normalized(peers: Peers) -> Runs:
    x = torch.randn(256, 64)

    def of_batch(x: Tensor) -> Tensor:
        centred = x - x.mean(0)
        return centred / (centred.square().mean(0) + 1e-5).sqrt()

    def of_sample(x: Tensor) -> Tensor:
        centred = x - pmean(x, "batch")
        return centred / (pmean(centred.square(), "batch") + 1e-5).sqrt()

    def in_jax(jax: Any) -> Any:
        def of_sample(x: Any) -> Any:
            mean = lambda x: jax.lax.pmean(x, "batch")
            centred = x - mean(x)
            return centred / jax.numpy.sqrt(mean(centred**2) + 1e-5)

        return jax.grad(lambda x: (jax.vmap(of_sample, axis_name="batch")(x) ** 3).sum())

    total = lambda f: grad(lambda x: (f(x) ** 3).sum())
    return {
        PLAIN: lambda: total(of_batch)(x),
        OURS: lambda: total(vmap(of_sample, axis_name="batch"))(x),
        **peers.jax(in_jax, x),
    }


# For one sample among others, and for the batch.
_ACROSS: dict[str, tuple[Any, Any]] = {
    "psum": (lambda x: x / psum(x, "batch"), lambda x: x / x.sum(0)),
    "pmax": (lambda x: (x - pmax(x, "batch")).exp(), lambda x: (x - x.amax(0)).exp()),
    "ppermute": (
        lambda x: x * ppermute(x, "batch", [(i, (i + 1) % 256) for i in range(256)]),
        lambda x: x * x.roll(1, 0),
    ),
}


def across(name: str) -> Runs:
    x = torch.rand(256, 64) + 1
    of_sample, of_batch = _ACROSS[name]
    total = lambda f: grad(lambda x: (f(x) ** 3).sum())
    return {
        PLAIN: lambda: total(of_batch)(x),
        OURS: lambda: total(vmap(of_sample, axis_name="batch"))(x),
    }


def stopped(peers: Peers) -> Runs:
    x = torch.randn(10_000)
    return {
        PLAIN: lambda: grad(lambda x: (x * x.sin().detach()).sum())(x),
        OURS: lambda: grad(lambda x: (x * stop_gradient(x.sin())).sum())(x),
    }


def contrastive(peers: Peers) -> Runs:
    a, b = torch.randn(64, 32), torch.randn(64, 32)

    def of_batch(a: Tensor) -> Tensor:
        return -torch.log_softmax(a @ b.T, 1).diagonal().mean()

    def of_sample(a: Tensor, b: Tensor) -> Tensor:
        scores = all_gather(b, "batch") @ a
        return (a * b).sum() - scores.logsumexp(0)

    ours = lambda a: -vmap(of_sample, axis_name="batch")(a, b).mean()
    return {PLAIN: lambda: grad(of_batch)(a), OURS: lambda: grad(ours)(a)}


CASES = [
    Case("`custom_vjp`, gradient of 10,000 numbers", "`autograd.Function`", reverse_rule),
    Case("`custom_jvp`, gradient of 10,000 numbers", "without a rule", forward_rule),
    Case("`stop_gradient`, gradient of 10,000 numbers", "`detach`", stopped),
    Case("`custom_vmap`, 64 products of 32x32", "without a rule", batching_rule),
    Case("`checkpoint`, 4 blocks of 4 layers", "without", recomputed),
    Case(
        "`fixed_point`, gradient of a layer, 64x32",
        "through 60 steps",
        lambda peers: equilibrium(peers, False),
    ),
    Case(
        "`implicit_root`, gradient of the same",
        "through 60 steps",
        lambda peers: equilibrium(peers, True),
    ),
    Case("`pmean`, gradient of batch norm, 256x64", "on the batch", normalized),
    *(
        Case(
            f"`{name}`, gradient by 256 samples of 64",
            "on the batch",
            lambda peers, name=name: across(name),
        )
        for name in _ACROSS
    ),
    Case("`all_gather`, gradient of a contrastive loss, 64", "on the batch", contrastive),
]
