"""What can be seen of a jitted function before it is compiled; and what pickles keep."""

import pickle

import pytest
import torch

from functorch_ext import grad, jit, vmap


@jit(backend="graph")
def decorated(x):
    return x * 2


def plain(x, scale=1):
    return x.sin() * scale


def test_cost_of_a_product():
    lowered = jit(lambda a, b: (a @ b).sin(), backend="graph").lower(
        torch.randn(4, 5), torch.randn(5, 6)
    )
    assert lowered.operators() == {"aten.mm.default": 1, "aten.sin.default": 1}
    assert lowered.flops() == 2 * 4 * 5 * 6 + 4 * 6
    assert lowered.bytes() == 4 * ((4 * 5 + 5 * 6 + 4 * 6) + 2 * 4 * 6)


def test_cost_of_transforms_and_views():
    lowered = jit(vmap(grad(lambda x: (x @ x).sin())), backend="graph").lower(torch.randn(3, 8))
    assert lowered.flops() > 0 and lowered.bytes() > 0
    views = jit(lambda x: x.t()[1:], backend="graph").lower(torch.randn(3, 8))
    assert views.flops() == 0 and views.bytes() == 0


def test_what_is_compiled_takes_that_signature_only():
    compiled = jit(plain, backend="graph").lower(torch.randn(3)).compile()
    x = torch.randn(3)
    torch.testing.assert_close(compiled(x), x.sin())
    with pytest.raises(TypeError, match="for one signature"):
        compiled(torch.randn(4))


def test_pickles():
    x = torch.randn(3)
    assert pickle.loads(pickle.dumps(decorated)) is decorated
    fast = jit(plain, backend="graph", static_argnums=1)
    again = pickle.loads(pickle.dumps(fast))
    torch.testing.assert_close(again(x, 3), fast(x, 3))
    assert (again._backend, again._statics.numbers, again._dynamic) == ("graph", {1}, False)


def test_compile_time_is_logged(caplog):
    with caplog.at_level("INFO", logger="functorch_ext.jit"):
        jit(plain, backend="graph")(torch.randn(3))
    assert "compiled plain in" in caplog.text


def test_a_line_is_shown_while_compiling_takes_long(monkeypatch, capsys):
    from functorch_ext._jit import progress

    monkeypatch.setattr(progress, "_FIRST", 0.01)
    monkeypatch.setattr(progress, "_is_seen", lambda: True)
    import time

    with progress.Progress("f"):
        time.sleep(0.2)
    assert "functorch_ext.jit: compiling f" in capsys.readouterr().err
    monkeypatch.setattr(progress, "_is_seen", lambda: False)
    with progress.Progress("f"):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""
