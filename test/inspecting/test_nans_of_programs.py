"""``debug.nans`` leaves a program as it is: subclasses, tracing, compiled functions, new memory."""

import threading

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from functorch_ext import jit, jvp, sparse_jacobian, vmap
from functorch_ext.debug import nans
from test.oracle import rand


class Sub(torch.Tensor):
    pass


def sine(x):
    return x.sin() + 1


PROGRAMS = {
    "a layer": lambda x: nn.Linear(3, 2)(x.float()),
    "a parameter of a result": lambda x: nn.Parameter(x.sin()) * 2,
    "a subclass": lambda x: x.as_subclass(Sub) * 2,
    "a subclass inside vmap": vmap(lambda x: x.sin().as_subclass(Sub) + 1),
    "a subclass with a tangent": lambda x: jvp(lambda x: x.sin().as_subclass(Sub), (x,), (x,)),
    "a fake tensor": lambda x: FakeTensorMode().from_tensor(x).sin(),
    "fake": lambda x: make_fx(sine, tracing_mode="fake")(x)(x),
    "symbolic": lambda x: make_fx(sine, tracing_mode="symbolic")(x)(x),
    "jit": lambda x: jit(sine)(x),
    "a sparse Jacobian": lambda x: sparse_jacobian(sine)(x[0]),
    "torch.compile": lambda x: torch.compile(sine, backend="aot_eager")(x),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_runs_as_without(program):
    torch._dynamo.reset()
    assert not nans(program)(rand(1, 3))


class Full(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.called.append(func)
        return func(*args, **(kwargs or {}))


def test_modes_of_the_program_see_nothing_of_it():
    def f(x):
        with mode:
            return x.backward()

    called = []
    for observe in (nans, lambda f: f):
        mode = Full()
        mode.called = []
        observe(f)(rand().requires_grad_().log())
        called.append(mode.called)
    assert called[0] == called[1]


# Each gets memory without a number in it, as an allocator may give it out.
MEMORY = {
    "set_": lambda given: torch.empty(0).set_(given).fill_(1),
    "resize_": lambda given: torch.empty(0).set_(given).resize_(2, 2).fill_(1),
    "a view": lambda given: torch.empty(0).set_(given)[1:].fill_(1),
    "detach": lambda given: torch.empty(0).set_(given).detach().unsqueeze(0).fill_(1),
}


@pytest.mark.parametrize("program", MEMORY.values(), ids=MEMORY)
def test_memory_that_nobody_has_written_is_not_looked_at(program):
    found = nans(program)(torch.full((4,), torch.nan).untyped_storage())
    assert not found, found


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.empty(3),
        lambda x: torch.empty_like(x),
        lambda x: x.new_empty(3),
        lambda x: torch.empty_strided((3,), (1,)),
    ],
)
def test_new_memory_is_not_looked_at(make):
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)  # which fills it with NaN
    try:
        assert make(torch.ones(3)).isnan().all()
        found = nans(lambda x: make(x).fill_(1))(torch.ones(3))
    finally:
        torch.use_deterministic_algorithms(False)
    assert not found, found


def test_a_constant_arrives():
    found = nans(lambda x: x * torch.tensor(float("nan")))(torch.ones(2))
    assert [(each.operator, each.from_arguments) for each in found.first] == [
        ("aten::mul.Tensor", True)
    ]


def test_another_dtype_may_be_infinite():
    (first,) = nans(lambda x: (x * 1e10).to(torch.float16))(torch.ones(2)).first
    assert (first.kind, first.operator) == ("infinity", "aten::to.dtype")


def test_sparse_values_are_looked_at():
    x = torch.eye(3)
    for made in (torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, torch.Tensor.to_sparse_csc):
        (first,) = nans(lambda x, made=made: made(x).mul(1e38).mul(1e38))(x).first
        assert first.kind == "infinity" and not first.from_arguments, first


def test_other_threads_are_not_observed():
    def f(x):
        thread = threading.Thread(target=x.log)
        thread.start()
        thread.join()

    assert str(nans(f)(-torch.ones(2))) == "all numbers that this thread computed are finite"
