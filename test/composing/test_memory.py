"""A gradient takes the memory that plain autograd takes; calls leave nothing behind."""

import gc
import weakref

import pytest
import torch

from functorch_ext import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from test.composing import memory
from test.oracle import rand
from test.state import live_levels


@pytest.mark.slow
@pytest.mark.parametrize("workload", memory.WORKLOADS)
def test_peak_of_grad_is_that_of_plain_autograd(workload):
    ours, plain = (memory.peak(workload, side) for side in ("functorch_ext", memory.PLAIN))
    assert ours <= 1.05 * plain


def body(x):
    return (x.sin() * x).exp().cumsum(-1)


def total(func):
    return lambda x: func(x).sin().sum()


NESTED = {
    "vmap(grad)": vmap(grad(total(body))),
    "grad(vmap)": grad(total(vmap(body))),
    "vmap(vjp)": vmap(lambda x: vjp(body, x)[1](x)[0]),
    "jvp(vmap(jvp))": lambda x: jvp(vmap(lambda x: jvp(body, (x,), (x,))[1]), (x,), (x,))[1],
    "vmap(linearize)": vmap(lambda x: linearize(body, x)[1](x)),
    "vmap(jacrev)": vmap(jacrev(body)),
    "vmap(jacfwd)": vmap(jacfwd(body)),
    "vmap(hessian)": vmap(hessian(total(body))),
    "grad(vmap(grad))": grad(total(vmap(grad(total(body))))),
}


def resident():
    """The memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.parametrize("name", NESTED)
def test_memory_stays_flat(name):
    """10,000 calls, also without the collector of reference cycles."""
    func, x = NESTED[name], rand(4, 3)
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

    functions = {
        "vmap(grad)": vmap(grad(total(watched))),
        "grad(vmap)": grad(total(vmap(watched))),
        "vmap(vjp)": vmap(lambda x: vjp(watched, x)[1](x)[0]),
        "jvp(vmap(jvp))": lambda x: jvp(vmap(lambda x: jvp(watched, (x,), (x,))[1]), (x,), (x,))[1],
        "vmap(linearize)": vmap(lambda x: linearize(watched, x)[1](x)),
        "vmap(jacrev)": vmap(jacrev(watched)),
        "vmap(jacfwd)": vmap(jacfwd(watched)),
        "vmap(hessian)": vmap(hessian(total(watched))),
        "grad(vmap(grad))": grad(total(vmap(grad(total(watched))))),
    }
    functions[name](x)  # imports and compiles what is needed once
    seen.clear()
    gc.collect()
    gc.disable()
    try:
        levels = live_levels()
        functions[name](x)
        assert seen and not any(reference() is not None for reference in seen)
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
