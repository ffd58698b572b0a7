"""A gradient takes the memory that plain autograd takes; calls leave nothing behind."""

import gc
import weakref

import pytest
import torch

from benchmarks import memory
from benchmarks.peers import LOOP, OURS
from functorch_ext import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from test.interrupts.jobs import JOBS
from test.oracle import rand
from test.state import live_levels


@pytest.mark.slow
@pytest.mark.parametrize("workload", memory.GRADIENTS)
def test_peak_of_grad_is_that_of_plain_autograd(workload):
    assert memory.peak(workload, OURS) <= 1.05 * memory.peak(workload, LOOP)


def body(x):
    return (x.sin() * x).exp().cumsum(-1)


def total(func):
    return lambda x: func(x).sin().sum()


def forward(func):
    return lambda x: jvp(func, (x,), (x,))[1]


NESTED = {
    "vmap(grad)": lambda f: vmap(grad(total(f))),
    "grad(vmap)": lambda f: grad(total(vmap(f))),
    "vmap(vjp)": lambda f: vmap(lambda x: vjp(f, x)[1](x)[0]),
    "jvp(vmap(jvp))": lambda f: forward(vmap(forward(f))),
    "vmap(linearize)": lambda f: vmap(lambda x: linearize(f, x)[1](x)),
    "vmap(jacrev)": lambda f: vmap(jacrev(f)),
    "vmap(jacfwd)": lambda f: vmap(jacfwd(f)),
    "vmap(hessian)": lambda f: vmap(hessian(total(f))),
    "grad(vmap(grad))": lambda f: grad(total(vmap(grad(total(f))))),
}


def resident():
    """The memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.parametrize("name", NESTED)
def test_memory_stays_flat(name):
    """10,000 calls, also without the collector of reference cycles."""
    func, x = NESTED[name](body), rand(4, 3)
    for _ in range(500):
        func(x)
    gc.collect()
    gc.disable()
    try:
        before, levels = resident(), live_levels()
        for _ in range(10_000):
            func(x)
        assert live_levels() == levels
        assert resident() - before < 2 * memory.MIB
    finally:
        gc.enable()


@pytest.mark.parametrize("name", NESTED)
def test_nothing_is_kept_by_cycles(name):
    """Without the collector of cycles, no level and no tensor of the function is alive."""
    seen, x = [], rand(4, 3)

    def watched(x):
        result = body(x)
        seen.extend([weakref.ref(x), weakref.ref(result)])
        return result

    func = NESTED[name](watched)
    func(x)  # imports and compiles what is needed once
    seen.clear()
    gc.collect()
    gc.disable()
    try:
        levels = live_levels()
        func(x)
        assert seen and not any(reference() is not None for reference in seen)
        assert live_levels() == levels
    finally:
        gc.enable()


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_no_level_is_kept_by_cycles(job):
    """Nor where transforms are made inside of others, of functions that close over samples."""
    job.run()
    gc.collect()
    gc.disable()
    try:
        levels = live_levels()
        job.run()
        assert live_levels() == levels
    finally:
        gc.enable()


def test_a_graph_that_nobody_asked_for_is_not_kept():
    w = rand(3, requires_grad=True)
    x = rand(4, 3)
    assert not vmap(grad(lambda x: (x * 2).sin().sum()))(x).requires_grad
    assert vmap(grad(lambda x: (x * w).sin().sum()))(x).requires_grad
    with torch.no_grad():
        assert not vmap(grad(lambda x: (x * w).sin().sum()))(x).requires_grad


@pytest.mark.parametrize("transform", [vmap, grad, jacrev, jacfwd, hessian])
def test_a_function_that_holds_its_own_transform_is_collected(transform):
    class Function:
        def __call__(self, x):
            return x.sum()

    func = Function()
    func.transformed = transform(func)
    func.transformed(rand(4, 3))
    kept = weakref.ref(func)
    del func
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("keep", [False, True], ids=["gone", "kept"])
def test_an_argument_stands_for_its_value_for_as_long_as_somebody_has_it(keep):
    kept, x = [], rand(4, 3)

    def func(sample):
        if keep:
            kept.append(sample.sum)  # a method holds its tensor
        return sample

    assert vmap(func)(x) is not None
    for method in kept:
        with pytest.raises(RuntimeError, match="outlived its vmap"):
            method()
