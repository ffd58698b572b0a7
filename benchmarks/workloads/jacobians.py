"""Jacobians, Hessians and Hessian-vector products of an MLP by its input.

By hand is the formula, as for two layers there is one: with ``h`` the hidden units, the Jacobian is
``W2 diag(1 - h²) W1`` and the Hessian of one output ``W1ᵀ diag(-2 w2 h (1 - h²)) W1``.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import functional

from benchmarks.models import mlp, mlp_in_jax
from benchmarks.peers import BY_HAND, FUNCTIONAL, LOOP, Peers, parameters_of
from benchmarks.timing import Contenders
from benchmarks.workload import workload


def _rows(output: Tensor, x: Tensor) -> Tensor:
    """The Jacobian, one backward pass for each number of the output."""
    rows = [torch.autograd.grad(entry, x, retain_graph=True)[0] for entry in output]
    return torch.stack(rows)


def jacobian_of_mlp(
    peers: Peers, transform: str, size: int = 16, hidden: int = 32, **strategy: Any
) -> Contenders:
    """The Jacobian, by "jacrev" or "jacfwd", of an MLP with as many outputs as inputs."""
    model = mlp(size, hidden, size).requires_grad_(False)
    weights = parameters_of(model)
    x = torch.randn(size)

    def make(library: ModuleType) -> Callable[[], Any]:
        jacobian = getattr(library, transform)(model)
        return lambda: jacobian(x)

    def by_hand() -> Tensor:
        hidden = (weights["0.weight"] @ x + weights["0.bias"]).tanh()
        return weights["2.weight"] * (1 - hidden * hidden) @ weights["0.weight"]

    def loop() -> Tensor:
        leaf = x.detach().requires_grad_()
        return _rows(model(leaf), leaf)

    def in_jax(jax: ModuleType) -> Callable[..., Any]:
        def jacobian(weights: dict[str, Any], x: Any) -> Any:
            return getattr(jax, transform)(lambda x: mlp_in_jax(jax, weights, x))(x)

        return jacobian

    return {
        **peers.both(make),
        BY_HAND: by_hand,
        LOOP: loop,
        FUNCTIONAL: lambda: functional.jacobian(model, x, vectorize=True, **strategy),
        **peers.jax(in_jax, weights, x),
    }


@workload("jacrev of an MLP, 16-32-16", faster_than_torch_func=3)
def jacrev(peers: Peers) -> Contenders:
    """The Jacobian by rows."""
    return jacobian_of_mlp(peers, "jacrev")


@workload("jacfwd of an MLP, 16-32-16", faster_than_torch_func=5)
def jacfwd(peers: Peers) -> Contenders:
    """The Jacobian by columns."""
    return jacobian_of_mlp(peers, "jacfwd", strategy="forward-mode")


def _scalar_mlp(size: int, hidden: int) -> tuple[Callable[[Tensor], Tensor], dict[str, Tensor]]:
    model = mlp(size, hidden, 1).requires_grad_(False)
    return lambda x: model(x).sum(), parameters_of(model)


def hessian_of_mlp(peers: Peers, size: int = 16, hidden: int = 32) -> Contenders:
    """All second derivatives of an MLP with one output."""
    func, weights = _scalar_mlp(size, hidden)
    x = torch.randn(size)

    def make(library: ModuleType) -> Callable[[], Any]:
        hessian = library.hessian(func)
        return lambda: hessian(x)

    def by_hand() -> Tensor:
        hidden = (weights["0.weight"] @ x + weights["0.bias"]).tanh()
        curvature = -2 * weights["2.weight"] * hidden * (1 - hidden * hidden)
        return weights["0.weight"].T * curvature @ weights["0.weight"]

    def loop() -> Tensor:
        leaf = x.detach().requires_grad_()
        return _rows(torch.autograd.grad(func(leaf), leaf, create_graph=True)[0], leaf)

    def in_jax(jax: ModuleType) -> Callable[..., Any]:
        return lambda weights, x: jax.hessian(lambda x: mlp_in_jax(jax, weights, x).sum())(x)

    return {
        **peers.both(make),
        BY_HAND: by_hand,
        LOOP: loop,
        FUNCTIONAL: lambda: functional.hessian(func, x, vectorize=True),
        **peers.jax(in_jax, weights, x),
    }


@workload("hessian of an MLP, 16-32-1", faster_than_torch_func=4)
def hessian(peers: Peers) -> Contenders:
    """All second derivatives."""
    return hessian_of_mlp(peers)


@workload("jvp(grad) of an MLP, 16-32-1", faster_than_torch_func=5, times_hand=1.4)
def hessian_vector_product(peers: Peers) -> Contenders:
    """Forward over reverse. By hand: two backward passes, the first of them recorded."""
    func, weights = _scalar_mlp(16, 32)
    x, direction = torch.randn(16), torch.randn(16)

    def make(library: ModuleType) -> Callable[[], Any]:
        gradient = library.grad(func)
        return lambda: library.jvp(gradient, (x,), (direction,))[1]

    def by_hand() -> Tensor:
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(func(leaf), leaf, create_graph=True)
        return torch.autograd.grad(gradient, leaf, direction)[0]

    def in_jax(jax: ModuleType) -> Callable[..., Any]:
        def product(weights: dict[str, Any], x: Any, direction: Any) -> Any:
            gradient = jax.grad(lambda x: mlp_in_jax(jax, weights, x).sum())
            return jax.jvp(gradient, (x,), (direction,))[1]

        return product

    return {
        **peers.both(make),
        BY_HAND: by_hand,
        FUNCTIONAL: lambda: functional.vhp(func, x, direction)[1],
        **peers.jax(in_jax, weights, x, direction),
    }


@workload("vmap(jacrev) of an MLP, 16-32-16, B=128", faster_than_torch_func=2.5)
def mapped_jacobian(peers: Peers) -> Contenders:
    """A Jacobian for each sample. The loop is over outputs: samples don't mix."""
    model = mlp(16, 32, 16).requires_grad_(False)
    weights = parameters_of(model)
    x = torch.randn(128, 16)

    def make(library: ModuleType) -> Callable[[], Any]:
        jacobians = library.vmap(library.jacrev(model))
        return lambda: jacobians(x)

    def by_hand() -> Tensor:
        hidden = (x @ weights["0.weight"].T + weights["0.bias"]).tanh()
        return (weights["2.weight"] * (1 - hidden * hidden)[:, None]) @ weights["0.weight"]

    def loop() -> Tensor:
        leaf = x.detach().requires_grad_()
        return _rows(model(leaf).sum(0), leaf).movedim(1, 0)

    def functional_jacobian() -> Tensor:
        return functional.jacobian(lambda x: model(x).sum(0), x, vectorize=True).movedim(1, 0)

    def in_jax(jax: ModuleType) -> Callable[..., Any]:
        def jacobians(weights: dict[str, Any], x: Any) -> Any:
            return jax.vmap(jax.jacrev(lambda x: mlp_in_jax(jax, weights, x)))(x)

        return jacobians

    return {
        **peers.both(make),
        BY_HAND: by_hand,
        LOOP: loop,
        FUNCTIONAL: functional_jacobian,
        **peers.jax(in_jax, weights, x),
    }


WORKLOADS = [jacrev, jacfwd, hessian, hessian_vector_product, mapped_jacobian]
