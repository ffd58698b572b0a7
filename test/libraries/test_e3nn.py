"""e3nn: forces, and the hessian, of an energy made of equivariant layers."""

import pytest
import torch
from torch.autograd import functional

from functorch_ext import grad, hessian, jvp, vmap
from test.oracle import assert_close, rand

o3 = pytest.importorskip("e3nn.o3")
pytestmark = pytest.mark.slow


def energy_function():
    torch.manual_seed(0)
    product = o3.FullyConnectedTensorProduct("0e+1o", "0e+1o", "0e+1o+2e").double()
    others = ~torch.eye(4, dtype=torch.bool)

    def energy(positions):
        edges = (positions[:, None] - positions)[others]
        harmonics = o3.spherical_harmonics("0e+1o", edges, True, normalization="component")
        return product(harmonics * edges.norm(dim=1, keepdim=True), harmonics).square().sum()

    return energy


def test_forces_and_hessian():
    energy, positions, stack = energy_function(), rand(4, 3), rand(3, 4, 3)
    gradient = functional.jacobian(energy, positions)
    assert_close(grad(energy)(positions), gradient, 1e-7)
    forces = torch.stack([functional.jacobian(energy, each) for each in stack])
    assert_close(vmap(grad(energy))(stack), forces, 1e-7)
    assert_close(jvp(energy, (positions,), (positions,))[1], (gradient * positions).sum(), 1e-7)
    assert_close(hessian(energy)(positions), functional.hessian(energy, positions), 1e-7)
