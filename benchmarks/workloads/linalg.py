"""Linear algebra of one matrix, for a batch of them."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers import BY_HAND, LOOP, Peers
from benchmarks.timing import Contenders
from benchmarks.workload import workload


@workload("logdet + solve, 8x8, B=32", times_hand=1.5)
def gaussian(peers: Peers) -> Contenders:
    """A Gaussian's log density but for constants. By hand: the functions take batches."""
    root = torch.randn(32, 8, 8)
    covariance, x = root @ root.mT + torch.eye(8), torch.randn(32, 8)

    def density(covariance: Tensor, x: Tensor) -> Tensor:
        return torch.logdet(covariance) + (x * torch.linalg.solve(covariance, x)).sum()

    def make(library: ModuleType) -> Callable[[], Any]:
        mapped = library.vmap(density)
        return lambda: mapped(covariance, x)

    def by_hand() -> Tensor:
        return torch.logdet(covariance) + (x * torch.linalg.solve(covariance, x)).sum(-1)

    def in_jax(jax: ModuleType) -> Callable[..., Any]:
        def density(covariance: Any, x: Any) -> Any:
            linalg = jax.numpy.linalg
            return linalg.slogdet(covariance)[1] + (x * linalg.solve(covariance, x)).sum()

        return jax.vmap(density)

    return {
        **peers.both(make),
        BY_HAND: by_hand,
        LOOP: lambda: torch.stack([density(matrix, b) for matrix, b in zip(covariance, x)]),
        **peers.jax(in_jax, covariance, x),
    }


WORKLOADS = [gaussian]
