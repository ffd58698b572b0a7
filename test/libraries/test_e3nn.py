"""e3nn: forces, and the hessian, of an energy made of equivariant layers."""

import pytest
import torch
from torch.autograd import functional

from functorch_ext import grad, hessian, jvp, vmap
from test.libraries.models import energy_of_atoms
from test.oracle import assert_close, rand

pytest.importorskip("e3nn.o3")
pytestmark = pytest.mark.slow


def test_forces_and_hessian():
    energy, positions, stack = energy_of_atoms(), rand(4, 3), rand(3, 4, 3)
    gradient = functional.jacobian(energy, positions)
    assert_close(grad(energy)(positions), gradient, 1e-7)
    forces = torch.stack([functional.jacobian(energy, each) for each in stack])
    assert_close(vmap(grad(energy))(stack), forces, 1e-7)
    assert_close(jvp(energy, (positions,), (positions,))[1], (gradient * positions).sum(), 1e-7)
    assert_close(hessian(energy)(positions), functional.hessian(energy, positions), 1e-7)
