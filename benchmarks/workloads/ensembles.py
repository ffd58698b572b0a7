"""Several models of one architecture on the same batch."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import mlp, mlp_in_jax
from benchmarks.peers import BY_HAND, LOOP, Peers
from benchmarks.timing import Contenders
from benchmarks.workload import workload


@workload("ensemble of 10 MLPs 16-32-16, B=32", times_hand=1.4)
def ensemble(peers: Peers) -> Contenders:
    """By hand: batched matrix products with the stacked weights."""
    models = [mlp(16, 32, 16).requires_grad_(False) for _ in range(10)]
    x = torch.randn(32, 16)
    stacked, _ = torch.func.stack_module_state(models)
    stacked = {name: value.detach() for name, value in stacked.items()}

    def make(library: ModuleType) -> Callable[[], Any]:
        def call(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            return library.functional_call(models[0], parameters, (x,))

        mapped = library.vmap(call, in_dims=(0, None))
        return lambda: mapped(stacked, x)

    def by_hand() -> Tensor:
        inputs = x.expand(10, 32, 16)
        first = stacked["0.bias"].unsqueeze(1), inputs, stacked["0.weight"].mT
        hidden = torch.baddbmm(*first).tanh()
        return torch.baddbmm(stacked["2.bias"].unsqueeze(1), hidden, stacked["2.weight"].mT)

    def in_jax(jax: ModuleType) -> Callable[..., Any]:
        return jax.vmap(lambda parameters, x: mlp_in_jax(jax, parameters, x), (0, None))

    return {
        **peers.both(make),
        BY_HAND: by_hand,
        LOOP: lambda: torch.stack([model(x) for model in models]),
        **peers.jax(in_jax, stacked, x),
    }


WORKLOADS = [ensemble]
