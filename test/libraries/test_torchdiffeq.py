"""torchdiffeq: derivatives through solvers of ordinary differential equations."""

import pytest
import torch
from torch.autograd import functional

from functorch_ext import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from test.oracle import assert_close, rand

torchdiffeq = pytest.importorskip("torchdiffeq")
pytestmark = pytest.mark.slow

TIMES = torch.linspace(0, 1, 3, dtype=torch.float64)
ADAPTIVE = 1e-5  # how far its steps may be off


class Field(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(rand(3, 3) * 0.3)

    def forward(self, t, y):
        return torch.tanh(y @ self.weight)


def solution(method, solver=torchdiffeq.odeint):
    torch.manual_seed(0)
    field = Field()
    return lambda y: solver(field, y, TIMES, method=method)[-1]


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_derivatives_of_a_solution(method):
    end, y = solution(method), rand(3)
    total = lambda y: end(y).square().sum()
    jacobian = functional.jacobian(end, y)
    assert_close(jacrev(end)(y), jacobian, ADAPTIVE)
    assert_close(jacfwd(end)(y), jacobian, ADAPTIVE)
    assert_close(jvp(end, (y,), (y,))[1], jacobian @ y, ADAPTIVE)
    assert_close(hessian(total)(y), functional.hessian(total, y), ADAPTIVE)


def test_samples_take_the_same_fixed_steps():
    end, ys = solution("rk4"), rand(4, 3)
    jacobians = torch.stack([functional.jacobian(end, y) for y in ys])
    assert_close(vmap(jacrev(end))(ys), jacobians)
    assert_close(vmap(jacfwd(end))(ys), jacobians)


def test_samples_that_need_other_steps_are_refused():
    with pytest.raises(RuntimeError, match="a number is read out of a batched tensor"):
        vmap(solution("dopri5"))(rand(4, 3))


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_the_adjoint_method(method):
    adjoint, y = solution(method, torchdiffeq.odeint_adjoint), rand(3)
    total = lambda y: adjoint(y).square().sum()
    assert_close(grad(total)(y), functional.jacobian(total, y), ADAPTIVE)


@pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")
def test_rows_of_a_jacobian_by_the_adjoint_method():
    end, y = solution("rk4", torchdiffeq.odeint_adjoint), rand(3)
    assert_close(jacrev(end)(y), functional.jacobian(end, y))


@pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")
def test_samples_by_the_adjoint_method():
    end, ys = solution("rk4", torchdiffeq.odeint_adjoint), rand(4, 3)
    total = lambda y: end(y).square().sum()
    gradients = torch.stack([functional.jacobian(total, y) for y in ys])
    assert_close(vmap(grad(total))(ys), gradients)
    assert_close(grad(lambda ys: vmap(total)(ys).sum())(ys), gradients)
    assert_close(vmap(jacrev(end))(ys), torch.stack([functional.jacobian(end, y) for y in ys]))


@pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")
def test_parameters_of_samples_by_the_adjoint_method():
    field, ys = Field(), rand(4, 3)

    def total(weight, y):
        derivative = lambda t, y: functional_call(field, {"weight": weight}, (t, y))
        solve = torchdiffeq.odeint_adjoint
        return solve(derivative, y, TIMES, method="rk4", adjoint_params=(weight,)).square().sum()

    weight = field.weight.detach()
    gradients = torch.stack([functional.jacobian(total, (weight, y))[0] for y in ys])
    assert_close(vmap(grad(total), (None, 0))(weight, ys), gradients)
    summed = grad(lambda weight: vmap(total, (None, 0))(weight, ys).sum())(weight)
    assert_close(summed, gradients.sum(0))


def test_the_adjoint_method_has_no_second_derivatives():
    end = solution("rk4", torchdiffeq.odeint_adjoint)
    with pytest.raises(NotImplementedError, match="OdeintAdjointMethod, which has no derivative"):
        jacfwd(end)(rand(3))
