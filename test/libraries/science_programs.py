"""The same for solvers of differential equations, graphs and equivariant networks."""

import functools

import torch
from torch.autograd import functional

from test.libraries.models import energy_of_atoms
from test.libraries.programs import add, jacobians, stacked

TIMES = torch.linspace(0, 1, 3, dtype=torch.float64)
WEIGHT = torch.tensor([[0.3, -0.1, 0.2], [0.1, 0.2, -0.3], [-0.2, 0.1, 0.1]]).double()
YS = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
WEIGHTS = torch.stack([WEIGHT, WEIGHT + 0.1, WEIGHT * 2, -WEIGHT])


# torchdiffeq


def end_of(method, weight=WEIGHT):
    import torchdiffeq

    field = lambda t, y: torch.tanh(y @ weight)
    return lambda y: torchdiffeq.odeint(field, y, TIMES, method=method)[-1]


def by_adjoint(method):
    import torchdiffeq

    def end(y, weight=WEIGHT):
        field = lambda t, y: torch.tanh(y @ weight)
        solve, own = torchdiffeq.odeint_adjoint, (weight,)
        return solve(field, y, TIMES, method=method, adjoint_params=own)[-1]

    return end


def total(end):
    return lambda *arguments: end(*arguments).square().sum()


Y = YS[3]
FIXED, ADAPTIVE = "`odeint` with fixed steps", "`odeint` with adaptive steps"
for steps, method in ((FIXED, "rk4"), (ADAPTIVE, "dopri5")):
    end = functools.partial(end_of, method)
    jacobian = lambda end=end: functional.jacobian(end(), Y)
    add("torchdiffeq", f"{steps}: `jvp`", lambda jacobian=jacobian: jacobian() @ Y)(
        lambda ft, end=end: ft.jvp(end(), (Y,), (Y,))[1]
    )
    add("torchdiffeq", f"{steps}: `jacrev`", jacobian)(lambda ft, end=end: ft.jacrev(end())(Y))
    add("torchdiffeq", f"{steps}: `jacfwd`", jacobian)(lambda ft, end=end: ft.jacfwd(end())(Y))
    add("torchdiffeq", f"{steps}: `hessian`", lambda end=end: functional.hessian(total(end()), Y))(
        lambda ft, end=end: ft.hessian(total(end()))(Y)
    )
    add("torchdiffeq", f"{steps}: `vmap(jacrev)`", lambda end=end: jacobians(end(), YS))(
        lambda ft, end=end: ft.vmap(ft.jacrev(end()))(YS)
    )

ADJOINT = "`odeint_adjoint`"
gradient = lambda method: lambda: functional.jacobian(total(by_adjoint(method)), Y)
gradients = lambda: jacobians(total(by_adjoint("rk4")), YS)
for steps, method in (("fixed", "rk4"), ("adaptive", "dopri5")):
    add("torchdiffeq", f"{ADJOINT}, {steps} steps: `grad`", gradient(method))(
        lambda ft, method=method: ft.grad(total(by_adjoint(method)))(Y)
    )


@add("torchdiffeq", f"{ADJOINT}: `jacrev`", lambda: functional.jacobian(by_adjoint("rk4"), Y))
def rows(ft):
    return ft.jacrev(by_adjoint("rk4"))(Y)


@add("torchdiffeq", f"{ADJOINT}, fixed steps: `vmap(grad)`", gradients)
def of_samples(ft):
    return ft.vmap(ft.grad(total(by_adjoint("rk4"))))(YS)


@add("torchdiffeq", f"{ADJOINT}, fixed steps: `grad(vmap)`", gradients)
def through_samples(ft):
    return ft.grad(lambda ys: ft.vmap(total(by_adjoint("rk4")))(ys).sum())(YS)


def by_weight(y, weight):
    loss = lambda weight: total(by_adjoint("rk4"))(y, weight)
    return functional.jacobian(loss, weight)


def by_weights():
    return stacked(by_weight, YS, WEIGHTS)


@add("torchdiffeq", f"{ADJOINT}: `vmap(grad)` by `adjoint_params`", by_weights)
def weights_of_samples(ft):
    return ft.vmap(ft.grad(total(by_adjoint("rk4")), 1))(YS, WEIGHTS)


@add("torchdiffeq", f"{ADJOINT}: `grad(vmap)` by `adjoint_params` that differ", by_weights)
def weights_through_samples(ft):
    loss = lambda weights: ft.vmap(total(by_adjoint("rk4")))(YS, weights).sum()
    return ft.grad(loss)(WEIGHTS)


@add(
    "torchdiffeq",
    f"{ADJOINT}: `jacfwd`, which the library doesn't have",
    lambda: functional.jacobian(by_adjoint("rk4"), Y),
)
def forward(ft):
    return ft.jacfwd(by_adjoint("rk4"))(Y)


# torch_geometric

EDGES = torch.tensor([[0, 1, 2, 3, 1], [1, 2, 3, 0, 3]])
NODES = torch.linspace(-1, 1, 60).view(3, 4, 5)
LAYERS = ("GCNConv", "GATConv", "SAGEConv")


@functools.cache
def layer(name):
    import torch_geometric.nn

    torch.manual_seed(0)
    return getattr(torch_geometric.nn, name)(5, 2).eval()


def weights_of(name):
    """A weight of the layer, and the layer as a function of it."""
    name_of, weight = next(p for p in layer(name).named_parameters() if p[1].dim() == 2)
    return name_of, weight.detach()


def loss_of(name, functional_call):
    name_of, _ = weights_of(name)
    call = lambda weight, x: functional_call(layer(name), {name_of: weight}, (x, EDGES))
    return lambda weight, x: call(weight, x).square().sum()


def losses_by_weight(name):
    loss, weight = loss_of(name, torch.func.functional_call), weights_of(name)[1]
    return stacked(lambda x: functional.jacobian(lambda w: loss(w, x), weight), NODES)


for name in LAYERS:
    add(
        "torch_geometric",
        f"per-sample gradients: {name}",
        functools.partial(losses_by_weight, name),
    )(
        lambda ft, name=name: ft.vmap(ft.grad(loss_of(name, ft.functional_call)), (None, 0))(
            weights_of(name)[1], NODES
        )
    )
    of_nodes = lambda x, name=name: layer(name)(x, EDGES)
    add(
        "torch_geometric",
        f"`jacfwd`: {name}",
        lambda of_nodes=of_nodes: functional.jacobian(of_nodes, NODES[0]),
    )(lambda ft, of_nodes=of_nodes: ft.jacfwd(of_nodes)(NODES[0]))


# e3nn

POSITIONS = torch.tensor([[0, 0, 0], [1, 0.2, 0], [0.3, 1, 0], [0, 0.5, 1]]).double()
STACK = torch.stack([POSITIONS, POSITIONS * 1.1, POSITIONS.sin()])


@add("e3nn", "forces, `vmap(grad)`", lambda: jacobians(energy_of_atoms(), STACK))
def forces(ft):
    return ft.vmap(ft.grad(energy_of_atoms()))(STACK)


@add("e3nn", "`hessian` of an energy", lambda: functional.hessian(energy_of_atoms(), POSITIONS))
def hessian(ft):
    return ft.hessian(energy_of_atoms())(POSITIONS)
