"""functional_call of one module from several threads, and of modules that contain themselves."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch import nn

from functorch_ext import _C, functional_call, grad, vmap
from test.oracle import assert_close, rand

X = rand(4, 3)


def states(module, count):
    named = dict(module.named_parameters())
    return [{name: rand(*p.shape) for name, p in named.items()} for _ in range(count)]


def in_threads(call, items, threads=8):
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, items))


def linear():
    return nn.Linear(3, 3).double()


@pytest.mark.parametrize("names", [("weight", "bias"), ("weight",)])
def test_one_module_in_many_threads(names):
    module = linear()
    own = dict(module.named_parameters())
    items = [{name: state[name] for name in names} for state in states(module, 200)]
    results = in_threads(lambda state: functional_call(module, state, X), items)
    for state, result in zip(items, results, strict=True):
        state = {**own, **state}
        assert_close(result, X @ state["weight"].T + state["bias"])
    assert dict(module.named_parameters()) == own


class Slow(nn.Module):
    """Lets other threads run while it has its parameters."""

    def __init__(self):
        super().__init__()
        self.inner = linear()

    def forward(self, x):
        weight = self.inner.weight
        time.sleep(1e-4)
        assert self.inner.weight is weight
        return self.inner(x)


def test_a_module_and_one_inside_it():
    outer = Slow()
    inner = outer.inner
    state = states(inner, 1)[0]
    expected = inner(X).detach(), functional_call(inner, state, X)

    def call(index):
        if index % 3 == 0:
            return functional_call(outer, {}, X)  # with its own parameters, whoever swaps them
        if index % 3 == 1:
            return functional_call(inner, state, X)
        return functional_call(outer, {f"inner.{name}": v for name, v in state.items()}, X)

    for index, result in enumerate(in_threads(call, range(90))):
        assert_close(result.detach(), expected[index % 3 != 0])


def test_transforms_in_many_threads():
    module = nn.Sequential(linear(), nn.Tanh(), linear())
    loss = lambda state, x: functional_call(module, state, x).square().sum()
    items = states(module, 40)
    expected = [vmap(grad(loss), (None, 0))(state, X) for state in items]
    results = in_threads(lambda state: vmap(grad(loss), (None, 0))(state, X), items)
    assert_close(results, expected)


def test_ties_are_those_of_the_modules_own_tensors():
    """What another thread has put in place looks tied, and isn't."""
    module = nn.Sequential(linear(), linear())
    one = rand(3, 3)
    tied = {"0.weight": one, "1.weight": one}
    apart = {"0.weight": rand(3, 3), "1.weight": rand(3, 3)}

    def call(index):
        state = apart if index % 2 else tied
        return functional_call(module, state, X)

    expected = [call(0), call(1)]
    for index, result in enumerate(in_threads(call, range(200))):
        assert_close(result, expected[index % 2])


def test_calls_nest_in_one_thread():
    module = linear()
    first, second = states(module, 2)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x) + functional_call(self.module, second, x)

    result = functional_call(Twice(), {f"module.{name}": v for name, v in first.items()}, X)
    assert_close(result, functional_call(module, first, X) + functional_call(module, second, X))


@pytest.fixture
def impatient():
    _C.set_longest_wait(0.2)
    yield
    _C.set_longest_wait(60)


def test_a_thread_that_the_call_waits_for_is_refused(impatient):
    class Starts(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, x):
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(functional_call, self.inner, state, x).result()

    module = Starts()
    state = states(module.inner, 1)[0]
    with pytest.raises(RuntimeError, match="another thread is inside a functional_call of this"):
        functional_call(module, {"inner.weight": state["weight"]}, X)
    assert_close(functional_call(module.inner, state, X), X @ state["weight"].T + state["bias"])


def test_two_threads_that_wait_for_each_other():
    """One of them is refused at once, so the other goes on."""
    first, second = linear(), linear()
    both_inside = threading.Barrier(2)

    class Calls(nn.Module):
        def __init__(self, own, other):
            super().__init__()
            self.own, self.others = own, [other]

        def forward(self, x):
            both_inside.wait()
            return functional_call(self.others[0], {"bias": rand(3)}, self.own(x))

    def call(module):
        try:
            return functional_call(module, {"own.bias": rand(3)}, X)
        except RuntimeError as error:
            return error

    results = in_threads(call, [Calls(first, second), Calls(second, first)])
    errors = [result for result in results if isinstance(result, RuntimeError)]
    assert len(errors) == 1 and "perhaps it waits for this thread" in str(errors[0])


class ContainsItself(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(rand(3))
        self.child = linear()
        self.child.parent = self

    def forward(self, x):
        return self.child(x) * self.child.parent.weight


def test_a_module_that_contains_itself():
    module = ContainsItself()
    weight, inner = rand(3), rand(3, 3)
    expected = (X @ inner.T + module.child.bias) * weight
    for strict in (False, True):
        state = {"weight": weight, "child.weight": inner}
        if strict:
            state["child.bias"] = module.child.bias
        assert_close(functional_call(module, state, X, strict=strict), expected)
    again = {"child.parent.weight": weight, "child.parent.child.weight": inner}
    assert_close(functional_call(module, again, X), expected)
    with pytest.raises(ValueError, match="names of one tensor"):
        functional_call(module, {"weight": weight, "child.parent.weight": rand(3)}, X)
    assert isinstance(module.weight, nn.Parameter)
    loss = lambda state: functional_call(module, state, X).sum()
    assert grad(loss)({"weight": weight})["weight"].shape == (3,)
