"""Second derivatives as physics needs them: a Laplacian at many points, forces' derivatives."""

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


@workload("PINN: trace(hessian) of 2-64-64-64-1 at 256 points", faster_than_torch_func=2.5)
def laplacian(peers: Peers) -> Contenders:
    """By hand: two backward passes for the whole batch, as points don't mix."""
    model = mlp(2, 64, 64, 64, 1).requires_grad_(False)
    points = torch.rand(256, 2)

    def make(library: ModuleType) -> Callable[[], Any]:
        hessian = library.hessian(lambda point: model(point).squeeze(-1))
        laplacian = library.vmap(lambda point: hessian(point).trace())
        return lambda: laplacian(points)

    def by_hand() -> Tensor:
        leaf = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf, create_graph=True)
        slopes = gradient.sum(0).unbind()
        return sum(
            torch.autograd.grad(slope, leaf, retain_graph=True)[0][:, i]
            for i, slope in enumerate(slopes)
        )

    def in_jax(jax: ModuleType) -> Callable[..., Any]:
        def laplacian(weights: dict[str, Any], points: Any) -> Any:
            hessian = jax.hessian(lambda point: mlp_in_jax(jax, weights, point)[0])
            return jax.vmap(lambda point: hessian(point).trace())(points)

        return laplacian

    return {
        **peers.both(make),
        BY_HAND: by_hand,
        **peers.jax(in_jax, parameters_of(model), points),
    }


@workload("Lennard-Jones: hessian, 8 atoms", faster_than_torch_func=4)
def lennard_jones(peers: Peers) -> Contenders:
    """The energy of atoms on a shaken cube, twice by their positions."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.3])] * 3)
    positions = corners + 0.05 * torch.randn(8, 3)
    first, second = torch.triu_indices(8, 8, offset=1).unbind()

    def energy(positions: Tensor) -> Tensor:
        difference = positions[first] - positions[second]
        attraction = difference.square().sum(-1) ** -3
        return 4 * (attraction * attraction - attraction).sum()

    def make(library: ModuleType) -> Callable[[], Any]:
        hessian = library.hessian(energy)
        return lambda: hessian(positions)

    def loop() -> Tensor:
        leaf = positions.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(leaf), leaf, create_graph=True)
        rows = [
            torch.autograd.grad(slope, leaf, retain_graph=True)[0]
            for slope in gradient.flatten().unbind()
        ]
        return torch.stack(rows).reshape(8, 3, 8, 3)

    def in_jax(jax: ModuleType) -> Callable[..., Any]:
        def energy(positions: Any, first: Any, second: Any) -> Any:
            difference = positions[first] - positions[second]
            attraction = (difference**2).sum(-1) ** -3
            return 4 * (attraction * attraction - attraction).sum()

        return jax.hessian(energy)

    return {
        **peers.both(make),
        LOOP: loop,
        FUNCTIONAL: lambda: functional.hessian(energy, positions, vectorize=True),
        **peers.jax(in_jax, positions, first, second),
    }


WORKLOADS = [laplacian, lennard_jones]
