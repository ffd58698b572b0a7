"""How later calls find what was compiled: in any containers, and not where something else is meant."""

import threading
from collections import namedtuple

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import nn

from functorch_ext import grad, hessian, jacrev, jit, jvp, vmap
from test.jit.counted import counted

Pair = namedtuple("Pair", "first second")


def test_dicts_in_another_order():
    function, fast = counted(lambda tree: tree["a"] - 2 * tree["b"])
    a, b = torch.randn(3), torch.randn(3)
    for _ in range(2):
        torch.testing.assert_close(fast({"a": a, "b": b}), a - 2 * b)
        torch.testing.assert_close(fast({"b": b, "a": a}), a - 2 * b)


def test_nested_containers_and_one_tensor_twice():
    def function(pair, rest):
        (x, y), z = pair, rest["deep"][0]
        return {"sum": [x + y, (z,)], "none": None, "text": "t"}

    function, fast = counted(function)
    x, y = torch.randn(3), torch.randn(3)
    fast((x, x), {"deep": [x]})
    found = fast((x, y), {"deep": [y * 2]})
    expected = function.function((x, y), {"deep": [y * 2]})
    torch.testing.assert_close(found["sum"], expected["sum"])
    assert list(found) == list(expected) and found["none"] is None and found["text"] == "t"
    assert function.calls == 1


def test_results_are_new_containers_at_each_call():
    fast = jit(lambda x: [x * 1.5, {"y": x}], backend="graph")
    first, second = fast(torch.ones(2)), fast(torch.ones(2))
    assert first is not second and first[1] is not second[1]


def test_other_containers():
    function, fast = counted(lambda pair: Pair(pair.second, pair.first * 2))
    x, y = torch.randn(2), torch.randn(2)
    for _ in range(2):
        found = fast(Pair(x, y))
        assert type(found) is Pair
        torch.testing.assert_close(found, Pair(y, x * 2))
    assert function.calls == 1


def test_numbers_by_type_and_sign():
    function, fast = counted(lambda x, n: x * n)
    x = torch.ones(2)
    for n in (1, 1.0, True, 0.0, -0.0, float("nan"), float("nan")):
        torch.testing.assert_close(fast(x, n), x * n, equal_nan=True)
    assert torch.signbit(fast(x, -0.0)).all() and not torch.signbit(fast(x, 0.0)).any()
    assert function.calls == 6


def test_static_arguments_of_any_hashable_kind():
    function, fast = counted(lambda x, f, *, mode: f(x) if mode == ("a",) else x, static_argnums=1)
    fast = jit(function, backend="graph", static_argnums=1, static_argnames="mode")
    x = torch.randn(2)
    for _ in range(2):
        torch.testing.assert_close(fast(x, torch.sin, mode=("a",)), x.sin())
        torch.testing.assert_close(fast(x, torch.cos, mode=("a",)), x.cos())
        torch.testing.assert_close(fast(x, torch.cos, mode=("b",)), x)
    assert function.calls == 3


def test_a_replaced_parameter_is_noticed():
    net = nn.Linear(3, 2)
    fast = jit(lambda x: net(x), backend="graph")
    x = torch.randn(4, 3)
    for _ in range(3):
        torch.testing.assert_close(fast(x), net(x))
        net.weight = nn.Parameter(torch.randn(2, 3))


def test_a_training_flag_is_noticed():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    fast = jit(lambda x: net(x), backend="graph")
    x = torch.randn(4, 3)
    for training in (False, True, False):
        net.train(training)
        net[1].reset_running_stats()
        found = fast(x)
        net[1].reset_running_stats()
        torch.testing.assert_close(found, net(x))


scale = torch.ones(2)


def test_a_replaced_variable_is_noticed():
    global scale
    weight = torch.ones(2)
    fast = jit(lambda x: x * weight, backend="graph")
    other = jit(lambda x: x * scale, backend="graph")
    x = torch.randn(2)
    for factor in (1, 2, 3):
        weight = torch.ones(2) * factor
        scale = torch.ones(2) * factor
        torch.testing.assert_close(fast(x), x * factor)
        torch.testing.assert_close(other(x), x * factor)


TRANSFORMS = {
    "vmap": lambda f: vmap(f),
    "grad": lambda f: grad(lambda x: f(x).sum()),
    "jacrev": jacrev,
    "hessian": lambda f: hessian(lambda x: f(x).sum()),
    "jvp": lambda f: lambda x: jvp(f, (x,), (torch.ones_like(x),)),
    "vmap(grad)": lambda f: vmap(grad(lambda x: f(x).sum())),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_jitted_functions_and_jit_of_those(name):
    transform = TRANSFORMS[name]
    function = lambda x: (x.sin() * x).cumsum(0)
    x = torch.randn(3, 4, dtype=torch.float64)
    if name not in ("vmap", "vmap(grad)"):
        x = x[0]
    expected = transform(function)(x)
    inner = jit(function, backend="graph")
    inner(x)  # has been compiled before
    torch.testing.assert_close(transform(inner)(x), expected)
    for _ in range(2):
        torch.testing.assert_close(jit(transform(inner), backend="graph")(x), expected)


def test_tangents_of_forward_mode():
    fast = jit(torch.sin, backend="graph")
    x, t = torch.randn(3), torch.randn(3)
    fast(x)
    with forward_ad.dual_level():
        out = fast(forward_ad.make_dual(x, t))
        torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, x.cos() * t)


def test_default_device_is_part_of_the_signature():
    fast = jit(lambda x: torch.zeros(3).device.type, backend="graph")
    x = torch.randn(3)
    assert fast(x) == "cpu"
    with torch.device("meta"):
        assert fast(x) == "meta"
    assert fast(x) == "cpu"


def test_threads():
    fast = jit(lambda x: x.sin() * 2, backend="graph")
    wrong = []

    def run():
        for _ in range(100):
            x = torch.randn(3)
            if not torch.equal(fast(x), x.sin() * 2):
                wrong.append(x)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_jitted_function_that_is_gone_frees_what_it_held():
    import gc
    import weakref

    def make():
        net = nn.Linear(2, 2)
        fast = jit(lambda x: net(x), backend="graph")
        fast(torch.randn(1, 2))
        net.fast = fast  # a cycle
        return weakref.ref(net)

    ref = make()
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("backend", ["graph", pytest.param("inductor", marks=pytest.mark.slow)])
def test_sizes_that_came_before_are_found_without_python(backend, monkeypatch):
    weight = torch.randn(3)
    f = jit(lambda x: (x * weight).sum(1) + x.shape[0], dynamic=True, backend=backend)
    expected = lambda x: (x * weight).sum(1) + x.shape[0]
    several = [torch.randn(n, 3) for n in (2, 5, 7, 1)]
    for x in several:
        torch.testing.assert_close(f(x), expected(x))
    looked_up = []
    monkeypatch.setattr(f, "_find", lambda *args: looked_up.append(args))
    for x in several:
        torch.testing.assert_close(f(x + 1), expected(x + 1))
    assert not looked_up


def test_sizes_without_end_are_looked_up_as_symbols():
    f = jit(lambda x: x.sin() + x.shape[0], dynamic=True, backend="graph")
    for n in range(2, 90):
        assert f(torch.ones(n)).equal(torch.ones(n).sin() + n)
    assert len(f._compiled) == 1 and f._sizes_left == 0
    assert f(torch.ones(88)).equal(torch.ones(88).sin() + 88)


def test_gradients_with_symbolic_sizes():
    f = jit(lambda x: x.sin().sum(), dynamic=True, backend="graph")
    for n in (3, 4, 3, 4):
        x = torch.randn(n, requires_grad=True)
        f(x).backward()
        torch.testing.assert_close(x.grad, x.cos())
