"""What a transform costs per call, and per operator: 40 pointwise operators on 4x8 numbers."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.functional import vjp

from benchmarks.peers import BY_HAND, FUNCTIONAL, LOOP, Peers
from benchmarks.timing import Contenders
from benchmarks.workload import workload


def chain(x: Tensor) -> Tensor:
    """40 pointwise operators."""
    for _ in range(10):
        x = x.sin()
        x = x * 0.5
        x = x + 1.0
        x = x.tanh()
    return x


def chain_sum(x: Tensor) -> Tensor:
    """The same to a number, to be differentiated."""
    return chain(x).sum()


def _chain_in_jax(jax: ModuleType) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        for _ in range(10):
            x = jax.numpy.sin(x)
            x = x * 0.5
            x = x + 1.0
            x = jax.numpy.tanh(x)
        return x

    return run


def _chain_sum_in_jax(jax: ModuleType) -> Callable[[Any], Any]:
    run = _chain_in_jax(jax)
    return lambda x: run(x).sum()


def gradient_by_autograd(func: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient of a function of one tensor, as one writes it without transforms."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(func(leaf), leaf)[0]


@workload("vmap(clone), 4x8", faster_than_torch_func=12, seconds=15e-6)
def entry_of_vmap(peers: Peers) -> Contenders:
    """What a call of a mapped function costs that does next to nothing."""
    x = torch.randn(4, 8)

    def make(library: ModuleType) -> Callable[[], Any]:
        mapped = library.vmap(torch.clone)
        return lambda: mapped(x)

    return {
        **peers.both(make),
        BY_HAND: x.clone,
        LOOP: lambda: torch.stack([sample.clone() for sample in x]),
        **peers.jax(lambda jax: jax.vmap(jax.numpy.copy), x),
    }


@workload("grad(sum), 4x8", times_hand=1.15)
def entry_of_grad(peers: Peers) -> Contenders:
    """What a gradient costs whose function does next to nothing."""
    x = torch.randn(4, 8)

    def make(library: ModuleType) -> Callable[[], Any]:
        gradient = library.grad(torch.sum)
        return lambda: gradient(x)

    return {
        **peers.both(make),
        BY_HAND: lambda: gradient_by_autograd(torch.sum, x),
        FUNCTIONAL: lambda: vjp(torch.sum, x)[1],
        **peers.jax(lambda jax: jax.grad(jax.numpy.sum), x),
    }


@workload("vmap of 40 pointwise operators, 4x8", times_hand=1.12)
def mapped(peers: Peers) -> Contenders:
    """What ``vmap`` adds to each operator. By hand: the function takes batches as it is."""
    x = torch.randn(4, 8)

    def make(library: ModuleType) -> Callable[[], Any]:
        mapped = library.vmap(chain)
        return lambda: mapped(x)

    return {
        **peers.both(make),
        BY_HAND: lambda: chain(x),
        LOOP: lambda: torch.stack([chain(sample) for sample in x]),
        **peers.jax(lambda jax: jax.vmap(_chain_in_jax(jax)), x),
    }


@workload("vmap(vmap) of the 40 operators, 4x4x8", times_hand=1.25)
def mapped_twice(peers: Peers) -> Contenders:
    """Two levels."""
    x = torch.randn(4, 4, 8)

    def make(library: ModuleType) -> Callable[[], Any]:
        mapped = library.vmap(library.vmap(chain))
        return lambda: mapped(x)

    return {
        **peers.both(make),
        BY_HAND: lambda: chain(x),
        LOOP: lambda: torch.stack([torch.stack([chain(sample) for sample in row]) for row in x]),
        **peers.jax(lambda jax: jax.vmap(jax.vmap(_chain_in_jax(jax))), x),
    }


@workload("grad of the 40 operators, 4x8", times_hand=1.05)
def gradient(peers: Peers) -> Contenders:
    """What ``grad`` adds to autograd."""
    x = torch.randn(4, 8)

    def make(library: ModuleType) -> Callable[[], Any]:
        gradient = library.grad(chain_sum)
        return lambda: gradient(x)

    return {
        **peers.both(make),
        BY_HAND: lambda: gradient_by_autograd(chain_sum, x),
        FUNCTIONAL: lambda: vjp(chain_sum, x)[1],
        **peers.jax(lambda jax: jax.grad(_chain_sum_in_jax(jax)), x),
    }


@workload("grad(grad) of the 40 operators, 4x8", times_hand=1.1)
def gradient_of_gradient(peers: Peers) -> Contenders:
    """Differentiated twice. By hand: a backward pass that is recorded, and another."""
    x = torch.randn(4, 8)

    def make(library: ModuleType) -> Callable[[], Any]:
        gradient = library.grad(chain_sum)
        twice = library.grad(lambda x: gradient(x).sum())
        return lambda: twice(x)

    def by_hand() -> Tensor:
        leaf = x.detach().requires_grad_()
        (once,) = torch.autograd.grad(chain_sum(leaf), leaf, create_graph=True)
        return torch.autograd.grad(once.sum(), leaf)[0]

    def in_jax(jax: ModuleType) -> Callable[[Any], Any]:
        gradient = jax.grad(_chain_sum_in_jax(jax))
        return jax.grad(lambda x: gradient(x).sum())

    return {
        **peers.both(make),
        BY_HAND: by_hand,
        FUNCTIONAL: lambda: vjp(lambda x: vjp(chain_sum, x, create_graph=True)[1].sum(), x)[1],
        **peers.jax(in_jax, x),
    }


@workload("vmap(grad) of the 40 operators, 4x8", times_hand=1.2)
def mapped_gradient(peers: Peers) -> Contenders:
    """Per-sample gradients. By hand: of the sum over samples, as they don't mix here."""
    x = torch.randn(4, 8)

    def make(library: ModuleType) -> Callable[[], Any]:
        gradient = library.vmap(library.grad(chain_sum))
        return lambda: gradient(x)

    return {
        **peers.both(make),
        BY_HAND: lambda: gradient_by_autograd(chain_sum, x),
        LOOP: lambda: torch.stack([gradient_by_autograd(chain_sum, sample) for sample in x]),
        FUNCTIONAL: lambda: vjp(chain_sum, x)[1],
        **peers.jax(lambda jax: jax.vmap(jax.grad(_chain_sum_in_jax(jax))), x),
    }


WORKLOADS = [
    entry_of_vmap,
    entry_of_grad,
    mapped,
    mapped_twice,
    gradient,
    gradient_of_gradient,
    mapped_gradient,
]
