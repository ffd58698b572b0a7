"""Modules of torch.distributed under transforms: two processes of one machine, with gloo."""

import functools
import os
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree

from test.composing.outcome import first_line, transforms
from test.composing.rows import row, sample, total

FEATURE = "DDP and FSDP2, two processes with gloo"
PROCESSES = 2
XS = sample(4, 3, dtype=torch.float32)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def ddp():
    return DistributedDataParallel(network())


def fsdp():
    module, mesh = network(), init_device_mesh("cpu", (PROCESSES,))
    for layer in module:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(module, mesh=mesh)


def by_input(F, module):
    return F.grad(total(module))(XS[0])


def by_inputs_per_sample(F, module):
    return F.vmap(F.grad(total(module)))(XS)


def along_input(F, module):
    return F.jvp(module, (XS[0],), (XS[1],))


def of_parameters(F, module):
    def loss(parameters, x):
        return total(lambda x: F.functional_call(module, parameters, (x,)))(x)

    return loss


def by_parameters(F, module):
    """Parameters of the wrapped module, which is what functional_call is for."""
    inner = getattr(module, "module", module)
    parameters = {name: p.detach() for name, p in inner.named_parameters()}
    return list(F.grad(of_parameters(F, inner))(parameters, XS[0]).values())


def per_sample(F, module):
    inner = getattr(module, "module", module)
    parameters = {name: p.detach() for name, p in inner.named_parameters()}
    gradients = F.vmap(F.grad(of_parameters(F, inner)), (None, 0))(parameters, XS)
    return list(gradients.values())


def given_parameters(F, module):
    """functional_call with whole parameters, whatever the module holds of its own."""
    parameters = {name: p.detach() for name, p in network().named_parameters()}
    inner = getattr(module, "module", module)
    gradients = F.vmap(F.grad(of_parameters(F, inner)), (None, 0))(parameters, XS)
    return list(gradients.values())


def step(F, module):
    """A training step around a transform: the gradients are averaged over the processes."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    total(lambda: module(XS[2 * rank : 2 * rank + 2]))().backward()
    return [p.grad for p in module.parameters()]


def step_through_a_gradient(F, module):
    """The loss is made of a gradient by the input, and trains the parameters."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    gradient = F.grad(total(module))(XS[rank])
    gradient.square().sum().backward()
    return [p.grad for p in module.parameters() if p.grad is not None]


def mine():
    """The samples of this process."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    return XS[2 * rank : 2 * rank + 2]


def gradients_of(module):
    return [p.grad for p in module.parameters() if p.grad is not None]


def step_through_samples(F, module):
    total(F.vmap(module))(mine()).backward()
    return gradients_of(module)


def step_through_gradients(F, module):
    F.vmap(F.grad(total(module)))(mine()).square().sum().backward()
    return gradients_of(module)


def step_through_a_tangent(F, module):
    output, tangent = F.jvp(module, (mine(),), (mine().cos(),))
    (output.sin().sum() + tangent.square().sum()).backward()
    return gradients_of(module)


def whole(x):
    """A tensor that is all here and not part of a graph."""
    return (x.full_tensor() if hasattr(x, "full_tensor") else x).detach().clone()


MODULES = {"DistributedDataParallel": ddp, "fully_shard": fsdp}


def work(rank, side, name, folder):
    """One of the processes: all computations, each result or message saved."""
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "store"), PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    results = {}
    for way, compute in (COMPUTATIONS | STEPS).items():
        try:
            result = compute(transforms(side), MODULES[name]())
            results[way] = pytree.tree_map(whole, result)
        except Exception as error:
            results[way] = first_line(error)
        dist.barrier()
    torch.save(results, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@functools.cache
def results(side, name):
    """What each process found: starting them takes longer than all computations."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, (side, name, folder), nprocs=PROCESSES)
        return [torch.load(os.path.join(folder, f"{rank}.pt")) for rank in range(PROCESSES)]


def in_processes(name, way):
    def computed(F):
        found = [each[way] for each in results(F.__name__, name)]
        for result in found:
            if isinstance(result, str):
                raise RuntimeError(result)
        return found

    return computed


def by_hand(compute):
    """The same with a plain module in one process."""

    def expected():
        from test.composing import reference

        result = compute(reference, network())
        return [result] * PROCESSES

    return expected


def averaged(compute):
    def expected():
        from test.composing import reference

        totals = None
        for rank in range(PROCESSES):
            dist_rank = dist.get_rank, dist.is_initialized
            dist.get_rank, dist.is_initialized = (lambda rank=rank: rank), (lambda: True)
            try:
                found = compute(reference, network())
            finally:
                dist.get_rank, dist.is_initialized = dist_rank
            totals = found if totals is None else [a + b for a, b in zip(totals, found)]
        return [[each / PROCESSES for each in totals]] * PROCESSES

    return expected


COMPUTATIONS = {
    "grad by inputs": by_input,
    "vmap(grad) by inputs": by_inputs_per_sample,
    "jvp by inputs": along_input,
    "grad by parameters, functional_call": by_parameters,
    "per-sample gradients, functional_call": per_sample,
    "per-sample gradients, functional_call with whole parameters": given_parameters,
}
STEPS = {
    "a training step": step,
    "a training step through grad": step_through_a_gradient,
    "a training step through vmap": step_through_samples,
    "a training step through vmap(grad)": step_through_gradients,
    "a training step through jvp": step_through_a_tangent,
}
ROWS = [
    row(FEATURE, name, way, in_processes(name, way), expected(compute), 1e-5, slow=True)
    for name in MODULES
    for computations, expected in ((COMPUTATIONS, by_hand), (STEPS, averaged))
    for way, compute in computations.items()
]
