"""All transforms on sharded tensors, run by each process of a mesh: `torchrun -m test.sharded.programs`."""

import functools

import torch
from torch import distributed
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh
from torch.utils._pytree import tree_leaves, tree_map

from functorch_ext import (
    all_gather,
    axis_index,
    axis_size,
    functional_call,
    functionalize,
    grad,
    grad_and_value,
    hessian,
    hvp,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    pmax,
    pmean,
    pmin,
    ppermute,
    psum,
    stack_module_state,
    vjp,
    vmap,
)
from test.oracle import assert_close

f = lambda x, w: (x @ w).sin()
loss = lambda x, w: f(x, w).sum()
row = lambda x, w: f(x, w).sum().exp()

PROGRAMS = {
    "vmap": lambda x, v, w: vmap(f, (0, None))(x, w),
    "grad": lambda x, v, w: grad(loss, (0, 1))(x, w),
    "grad_and_value": lambda x, v, w: grad_and_value(loss)(x, w),
    "vjp": lambda x, v, w: vjp(f, x, w)[1](v),
    "jvp": lambda x, v, w: jvp(lambda x: f(x, w), (x,), (v,)),
    "linearize": lambda x, v, w: linearize(lambda x: f(x, w), x)[1](v),
    "jacrev by weights": lambda x, v, w: jacrev(lambda w: f(x, w).sum(0))(w),
    "jacfwd by weights": lambda x, v, w: jacfwd(lambda w: f(x, w).sum(0))(w),
    "hessian by weights": lambda x, v, w: hessian(lambda w: loss(x, w))(w),
    "jacrev": lambda x, v, w: jacrev(lambda x: f(x, w).sum(0))(x),
    "jacfwd": lambda x, v, w: jacfwd(lambda x: f(x, w).sum(0))(x),
    "hessian": lambda x, v, w: hessian(lambda x: loss(x, w))(x),
    "hessian in chunks": lambda x, v, w: hessian(lambda x: loss(x, w), chunk_size=5)(x),
    "vmap of grad": lambda x, v, w: vmap(grad(row), (0, None))(x, w),
    "per-sample gradients": lambda x, v, w: vmap(grad(row, 1), (0, None))(x, w),
    "vmap of jvp": lambda x, v, w: vmap(lambda x, v: jvp(lambda x: row(x, w), (x,), (v,)))(x, v),
    "vmap of hessian": lambda x, v, w: vmap(hessian(row), (0, None))(x, w),
    "vmap of jacrev": lambda x, v, w: vmap(jacrev(f), (0, None))(x, w),
    "vmap of jacfwd": lambda x, v, w: vmap(jacfwd(f), (0, None))(x, w),
    "functionalize": lambda x, v, w: functionalize(lambda x: (x @ w).add_(1).sin_())(x),
    "hvp": lambda x, v, w: hvp(lambda x: loss(x, w))(x, v),
}


ACROSS_SAMPLES = {
    "psum": lambda x: x * psum(x, "batch"),
    "psum alone": lambda x: psum(x, "batch"),
    "psum of a number": lambda x: x * psum(1, "batch"),
    "pmean": lambda x: x - pmean(x, "batch"),
    "pmax": lambda x: x - pmax(x, "batch"),
    "pmin": lambda x: pmin(x.sin(), "batch"),
    "all_gather": lambda x: (all_gather(x, "batch") @ x).logsumexp(0),
    "ppermute": lambda x: x * ppermute(x, "batch", [(0, 2), (1, 3), (3, 0)]),
    "ppermute in a circle": lambda x: (
        x * ppermute(x, "batch", [(i, (i + 3) % 4) for i in range(4)])
    ),
    "axis_index": lambda x: x * axis_index("batch"),
    "axis_size": lambda x: x / axis_size("batch"),
}
AROUND = {
    "itself": lambda f, x: vmap(f, axis_name="batch")(x),
    "grad": lambda f, x: grad(lambda x: (vmap(f, axis_name="batch")(x) ** 3).sum())(x),
    "jvp": lambda f, x: jvp(vmap(f, axis_name="batch"), (x,), (x.cos(),)),
    "grad inside": lambda f, x: vmap(grad(lambda x: (f(x) ** 3).sum()), axis_name="batch")(x),
}


def check_collectives(mesh, placement):
    x = torch.randn(4, 4, dtype=torch.float64)
    sharded = distribute_tensor(x, mesh, [placement])
    for name, program in ACROSS_SAMPLES.items():
        for around, transform in AROUND.items():
            found = transform(program, sharded)
            message = f"{around} of {name} on {placement}"
            assert_close(whole(found), transform(program, x), message=message)


def whole(tree):
    return tree_map(lambda x: x.full_tensor() if isinstance(x, DTensor) else x, tree)


def check_programs(mesh, placement):
    x, v = (torch.randn(4, 4, dtype=torch.float64) for _ in range(2))
    w = torch.randn(4, 4, dtype=torch.float64)
    sharded = functools.partial(distribute_tensor, device_mesh=mesh, placements=[placement])
    replicated = distribute_tensor(w, mesh, [Replicate()])
    for name, program in PROGRAMS.items():
        found = program(sharded(x), sharded(v), replicated)
        assert all(isinstance(leaf, DTensor) for leaf in tree_leaves(found)), name
        assert_close(whole(found), program(x, v, w), message=f"{name} on {placement}")


def check_modules(mesh):
    models = [torch.nn.Linear(4, 2).double() for _ in range(4)]
    parameters, buffers = stack_module_state(models)
    x = torch.randn(3, 4, dtype=torch.float64)
    base = models[0]
    call = lambda parameters, x: functional_call(base, (parameters, buffers), (x,))
    expected = vmap(call, (0, None))(parameters, x)
    spread = {k: distribute_tensor(p.detach(), mesh, [Shard(0)]) for k, p in parameters.items()}
    found = vmap(call, (0, None))(spread, distribute_tensor(x, mesh, [Replicate()]))
    assert_close(whole(found), expected.detach(), message="an ensemble")


def check_columns_are_divided(mesh):
    x = distribute_tensor(torch.randn(8, dtype=torch.float64), mesh, [Replicate()])
    found = hessian(lambda x: x.sin().sum().exp())(x)
    assert found.placements == (Shard(1),)
    assert found.to_local().shape == (8, 8 // mesh.size())
    rows = jacrev(lambda x: x.sin() * x.sum())(x)
    assert rows.placements == (Shard(0),)


def main():
    distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    torch.manual_seed(0)  # the same numbers in each process
    for placement in (Shard(0), Shard(1), Replicate()):
        check_programs(mesh, placement)
        check_collectives(mesh, placement)
    check_modules(mesh)
    check_columns_are_divided(mesh)
    # In one write: the lines of several processes would mix.
    print(f"all right in {distributed.get_world_size()}\n", end="")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
