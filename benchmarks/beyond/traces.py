"""Diagonals and traces of Hessians, Taylor series, and sparse matrices."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.beyond.case import JIT, OURS, PLAIN, Case, Runs, mlp
from benchmarks.models import mlp_in_jax
from benchmarks.peers import TORCH_FUNC, Peers, parameters_of
from functorch_ext import (
    divergence,
    hessian,
    hessian_diag,
    hvp,
    jacfwd,
    jet,
    jit,
    jvp,
    laplacian,
    sparse_hessian,
    sparse_jacobian,
    trace_estimate,
    vmap,
)


def sum_of_second_derivatives(peers: Peers, inputs: int) -> Runs:
    model, x = mlp(inputs, 64, 64, 64, 64, 1), torch.randn(256, inputs)
    model.requires_grad_(False)
    value = lambda x: model(x)[0]
    ours = vmap(laplacian(value))

    def with_folx(jax: ModuleType) -> Callable[..., Any]:
        forward = importlib.import_module("folx").forward_laplacian

        def laplacians(p: Any, x: Any) -> Any:
            of_one = forward(lambda x: mlp_in_jax(jax, p, x)[0])
            return jax.vmap(lambda x: of_one(x).laplacian)(x)

        return laplacians

    theirs = torch.func.vmap(lambda x: torch.func.hessian(value)(x).trace())
    return {
        PLAIN: lambda: vmap(lambda x: hessian(value)(x).trace())(x),
        OURS: lambda: ours(x),
        JIT: (compiled := jit(ours)) and (lambda: compiled(x)),
        TORCH_FUNC: lambda: theirs(x),
        **(peers.jax(with_folx, parameters_of(model), x) if _has("folx") else {}),
    }


def _has(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def weighted(peers: Peers) -> Runs:
    model, x = mlp(12, 64, 64, 1), torch.randn(64, 12)
    model.requires_grad_(False)
    value = lambda x: model(x)[0]
    weights = torch.randn(12, 12)
    weights = weights @ weights.T
    return {
        PLAIN: lambda: vmap(lambda x: (hessian(value)(x) * weights).sum())(x),
        OURS: lambda: vmap(laplacian(value, weights=weights))(x),
    }


def of_a_field(peers: Peers) -> Runs:
    model, x = mlp(16, 64, 64, 16), torch.randn(128, 16)
    model.requires_grad_(False)
    ours = vmap(divergence(model))

    def in_jax(jax: Any) -> Any:
        def of_one(p: Any, x: Any) -> Any:
            return jax.numpy.trace(jax.jacfwd(lambda x: mlp_in_jax(jax, p, x))(x))

        return jax.vmap(of_one, in_axes=(None, 0))

    return {
        PLAIN: lambda: vmap(lambda x: jacfwd(model)(x).trace())(x),
        OURS: lambda: ours(x),
        JIT: (compiled := jit(ours)) and (lambda: compiled(x)),
        TORCH_FUNC: lambda: torch.func.vmap(lambda x: torch.func.jacfwd(model)(x).trace())(x),
        **peers.jax(in_jax, parameters_of(model), x),
    }


def diagonal(peers: Peers) -> Runs:
    model, x = mlp(64, 64, 1), torch.randn(64)
    model.requires_grad_(False)
    value = lambda x: model(x)[0]
    return {
        PLAIN: lambda: hessian(value)(x).diagonal(),
        OURS: lambda: hessian_diag(value)(x),
        TORCH_FUNC: lambda: torch.func.hessian(value)(x).diagonal(),
    }


def estimate(peers: Peers) -> Runs:
    # A diagonal matrix: each sample gives its trace.
    x = torch.randn(500)
    f = lambda x: x.sin().sum()
    return {
        PLAIN: lambda: hessian(f)(x).trace(),
        OURS: lambda: trace_estimate(hvp(f).at(x), x, samples=10).trace,
        TORCH_FUNC: lambda: torch.func.hessian(f)(x).trace(),
    }


def series(peers: Peers) -> Runs:
    model, x, v = mlp(16, 64, 64, 1), torch.randn(16), torch.randn(16)
    model.requires_grad_(False)

    def nested(jvp: Any) -> Any:
        along = lambda f: lambda x: jvp(f, (x,), (v,))[1]
        derivatives = [model]
        for _ in range(4):
            derivatives.append(along(derivatives[-1]))
        return [f(x) for f in derivatives]

    terms = [v, *[torch.zeros(16)] * 3]

    def ours() -> Any:
        value, derivatives = jet(model, (x,), (terms,))
        return [value, *derivatives]

    def in_jax(jax: Any) -> Any:
        jets = importlib.import_module("jax.experimental.jet").jet

        def derivatives(p: Any, x: Any, terms: Any) -> Any:
            value, rest = jets(lambda x: mlp_in_jax(jax, p, x), (x,), (terms,))
            return [value, *rest]

        return derivatives

    return {
        PLAIN: lambda: nested(jvp),
        OURS: ours,
        TORCH_FUNC: lambda: nested(torch.func.jvp),
        **peers.jax(in_jax, parameters_of(model), x, terms),
    }


def with_bands(x: Tensor) -> Tensor:
    """A function whose Jacobian has three bands: a step of diffusion, with zeros at the ends."""
    padded = F.pad(x, (1, 1))
    return x * (padded[2:] - 2 * x + padded[:-2]) + x.sin()


def banded(peers: Peers, size: int) -> Runs:
    plain, x = torch.randn(2000), torch.randn(size)
    x[:2000] = plain
    matrix = sparse_jacobian(with_bands)
    return {
        PLAIN: lambda: jacfwd(with_bands)(plain),
        OURS: lambda: matrix(x),
        TORCH_FUNC: lambda: torch.func.jacfwd(with_bands)(plain),
    }


def of_a_chain(peers: Peers, size: int) -> Runs:
    x = torch.randn(size)
    energy = lambda x: ((x[1:] - x[:-1]) ** 4).sum()
    matrix = sparse_hessian(energy)
    return {
        PLAIN: lambda: hessian(energy)(x),
        OURS: lambda: matrix(x),
        TORCH_FUNC: lambda: torch.func.hessian(energy)(x),
    }


CASES = [
    *(
        Case(
            f"`laplacian`, 4x64 tanh, d = {inputs}, batch 256",
            "`vmap(trace(hessian))`",
            lambda peers, inputs=inputs: sum_of_second_derivatives(peers, inputs),
        )
        for inputs in (12, 30)
    ),
    Case("`laplacian(f, weights=matrix)`, d = 12, batch 64", "`sum(hessian * matrix)`", weighted),
    Case("`divergence`, MLP 16-64-64-16, batch 128", "`vmap(trace(jacfwd))`", of_a_field),
    Case("`hessian_diag`, MLP 64-64-1", "`diagonal(hessian)`", diagonal),
    Case("`trace_estimate`, 10 samples, n = 500", "`trace(hessian)`", estimate),
    Case("`jet`, order 4, MLP 16-64-64-1", "nested `jvp`", series),
    Case("`sparse_jacobian`, 3 bands, n = 2000", "`jacfwd`", lambda peers: banded(peers, 2000)),
    Case(
        "`sparse_jacobian`, 3 bands, n = 10,000",
        "`jacfwd`, n = 2000",
        lambda peers: banded(peers, 10_000),
        is_same=False,
    ),
    Case("`sparse_hessian`, 3 bands, n = 2000", "`hessian`", lambda peers: of_a_chain(peers, 2000)),
]
