"""When a function is traced again, and when not."""

import pytest
import torch

from functorch_ext import grad, jit, vmap
from test.jit.counted import counted


def test_values_make_no_difference():
    function, jitted = counted(torch.sin)
    for _ in range(3):
        x = torch.randn(3)
        torch.testing.assert_close(jitted(x), torch.sin(x))
    assert function.calls == 1


@pytest.mark.parametrize(
    "other",
    [
        torch.randn(4),
        torch.randn(3, dtype=torch.float64),
        torch.randn(6)[::2],
        torch.randn(3, requires_grad=True),
        torch.randn(1, 3),
    ],
)
def test_shape_dtype_stride_and_requires_grad_do(other):
    function, jitted = counted(lambda x: x * 2)
    jitted(torch.randn(3))
    torch.testing.assert_close(jitted(other), other * 2)
    assert function.calls == 2


def test_conjugated_and_negated_tensors():
    function, jitted = counted(lambda x: x * 2)
    x = torch.randn(3, dtype=torch.complex64)
    for each in (x, x.conj(), x.conj().imag, x.imag):
        torch.testing.assert_close(jitted(each), each * 2)


def test_structure_and_numbers_are_part_of_the_signature():
    function, jitted = counted(lambda tree, power: {"sum": sum(tree) ** power, "power": power})
    x, y = torch.randn(2), torch.randn(2)
    for tree, power in (((x, y), 2), ([x, y], 2), ((x,), 2), ((x, y), 3), ((x, y), 2.0)):
        for _ in range(2):
            result = jitted(tree, power)
            torch.testing.assert_close(result["sum"], sum(tree) ** power)
            assert type(result["power"]) is type(power)
    assert function.calls == 5


def test_keyword_arguments():
    function, jitted = counted(lambda x, *, by=1: x * by)
    x = torch.randn(2)
    torch.testing.assert_close(jitted(x, by=3), x * 3)
    torch.testing.assert_close(jitted(x, by=x), x * x)
    torch.testing.assert_close(jitted(x), x)
    assert function.calls == 3


def test_static_arguments():
    function, jitted = counted(
        lambda x, mode, scale=1: (x.sin() if mode == ("sin",) else x.cos()) * scale,
        static_argnums=1,
        static_argnames="scale",
    )
    x = torch.randn(2)
    torch.testing.assert_close(jitted(x, ("sin",)), x.sin())
    torch.testing.assert_close(jitted(x, ("cos",), scale=2), x.cos() * 2)
    jitted(x, ("sin",))
    assert function.calls == 2
    with pytest.raises(ValueError, match=r"must be hashable.*\['sin'\].*Use a tuple"):
        jitted(x, ["sin"])


def test_modes_are_part_of_the_signature():
    x = torch.randn(3, 3, requires_grad=True)
    function, jitted = counted(lambda x: x @ x)
    assert jitted(x).requires_grad
    with torch.no_grad():
        assert not jitted(x).requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert jitted(x).dtype is torch.bfloat16
        assert jitted(x).dtype is torch.bfloat16
    assert jitted(x).dtype is torch.float32
    assert function.calls == 3


def test_dynamic_sizes_need_one_trace():
    function, jitted = counted(vmap(grad(lambda x: (x.sin() * x).sum())), dynamic=True)
    for size in (3, 5, 9):
        x = torch.randn(size, 4)
        torch.testing.assert_close(jitted(x), function.function(x))
    assert function.calls == 1
    x = torch.randn(1, 4)
    torch.testing.assert_close(jitted(x), function.function(x))


def test_dynamic_with_a_branch_on_a_size():
    function, jitted = counted(lambda x: x * 2 if x.shape[0] > 4 else x * 3, dynamic=True)
    for size in (3, 8, 2, 9):
        x = torch.randn(size)
        torch.testing.assert_close(jitted(x), function.function(x))
    assert function.calls == 2


def test_methods_and_decorators():
    class Model:
        def __init__(self):
            self.weight = torch.randn(3)

        @jit(backend="graph")
        def __call__(self, x):
            return x * self.weight

    model, x = Model(), torch.randn(3)
    torch.testing.assert_close(model(x), x * model.weight)
    model.weight.mul_(2)
    torch.testing.assert_close(model(x), x * model.weight)


def test_import_loads_no_compiler():
    import subprocess
    import sys

    code = (
        "import sys, functorch_ext; functorch_ext.jit(print);"
        "assert 'torch._inductor.compile_fx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_shapes_that_depend_on_values():
    fast = jit(lambda x: x[x > 0] * 2, backend="graph")
    for _ in range(2):
        x = torch.randn(5)
        torch.testing.assert_close(fast(x), x[x > 0] * 2)


@pytest.fixture
def kept_choices():
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(before[0])
    torch.set_float32_matmul_precision(before[1])


@pytest.mark.parametrize(
    "choose",
    [
        lambda: torch.use_deterministic_algorithms(True),
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    ],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_choices_between_speed_and_exactness(choose, dynamic, kept_choices):
    function, jitted = counted(lambda x: x @ x, dynamic=dynamic)
    x = torch.randn(3, 3)
    jitted(x)
    choose()
    for _ in range(2):
        jitted(x)
    assert function.calls == 2


def test_products_of_matrices_of_any_size():
    function, jitted = counted(lambda x, w: torch.tanh(x @ w).sum(0), dynamic=True)
    for rows, columns in ((3, 4), (5, 6), (7, 9)):
        x, w = torch.randn(rows, columns), torch.randn(columns, 8)
        torch.testing.assert_close(jitted(x, w), torch.tanh(x @ w).sum(0))
    assert function.calls == 1


def test_sizes_that_agree_by_chance():
    function, jitted = counted(lambda x, y: (x.view(-1, 2).sum(1).clone() * 2, y), dynamic=True)
    for first, second in ((8, 4), (8, 6), (12, 6)):
        x, y = torch.randn(first), torch.randn(second)
        torch.testing.assert_close(jitted(x, y), (x.view(-1, 2).sum(1) * 2, y))
