"""The report of ``explain``: its forms, what it holds, and what it leaves behind."""

import html.parser
import json
import threading

import pytest
import torch

from functorch_ext import _C, explain, grad, vmap
from functorch_ext.debug import nans
from test.oracle import rand


def loss(w, x):
    return torch.tanh(x @ w).sum()


@pytest.fixture
def report():
    return explain(vmap(grad(loss), in_dims=(None, 0)))(rand(3, 2), rand(8, 3))


def test_the_text_has_a_row_for_each_call(report):
    text = str(report)
    assert text == repr(report)
    summary, rows = text.split("\n", 1)
    assert summary.startswith("loss: ") and "no loops over samples" in summary
    assert "\nvmap(level 1, 8 samples) > grad\n" in rows
    assert "\nvmap(level 1, 8 samples) > grad, backward\n" in rows
    for call in report.walk():
        assert f"{call.name} " in rows and call.by in rows


def test_the_html_is_well_formed(report):
    class Checker(html.parser.HTMLParser):
        stack: list[str] = []
        cells = 0

        def handle_starttag(self, tag, attributes):
            self.stack.append(tag)
            self.cells += tag == "td"

        def handle_endtag(self, tag):
            assert self.stack.pop() == tag

    checker = Checker()
    checker.feed(report._repr_html_())
    checker.close()
    assert not checker.stack
    assert checker.cells == 7 * len(list(report.walk()))


def test_names_of_the_program_are_escaped_in_html():
    text = explain(vmap(lambda x: x.sin() if 1 < 2 else x))(rand(3))._repr_html_()
    assert "1 < 2" not in text and "&lt;lambda&gt;" in text


def test_the_dict_is_json(report):
    found = json.loads(json.dumps(report.to_dict()))
    assert found["name"] == "loss"
    assert [call["operator"] for call in found["calls"]] == [c.operator for c in report.calls]
    assert found["calls"][0]["place"]["code"] == "x @ w"


def test_times_and_memory_sum_up():
    def f(x):
        return (x * 2).sin().sum(0)

    report = explain(vmap(f))(torch.ones(10, 1000))
    assert sum(call.seconds for call in report.calls) <= report.seconds
    for call in report.walk():
        assert call.seconds >= sum(each.seconds for each in call.calls) >= 0
        assert call.allocated >= sum(each.allocated for each in call.calls)
    by_name = {call.name: call.allocated for call in report.calls}
    assert by_name["sin"] == 40_000 and by_name["mul.Tensor"] >= 40_000
    assert 80_000 <= report.peak <= 90_000


def test_no_level_and_no_tensor_is_held():
    before = _C.live_levels()
    x = rand(8, 3)
    report = explain(vmap(grad(lambda x: x.sin().sum())))(x)
    assert _C.live_levels() == before
    import sys

    assert sys.getrefcount(x) == 2
    assert report.calls


def test_an_exception_passes_and_leaves_nothing():
    def f(x):
        raise KeyError("mine")

    before = _C.live_levels()
    with pytest.raises(KeyError, match="mine"):
        explain(vmap(f))(rand(3))
    assert _C.live_levels() == before
    assert not torch._C._autograd._profiler_enabled()
    assert [call.name for call in explain(vmap(torch.sin))(rand(3)).calls] == ["sin"]


def test_an_operator_that_raises_is_no_part_of_the_next_report():
    def f(x):
        try:
            x @ torch.ones(7, dtype=x.dtype)
        except RuntimeError:
            pass
        return x.sin()

    report = explain(vmap(f))(rand(8, 3))
    assert report.calls[-1].name == "sin" and report.calls[-1].transforms == (
        "vmap(level 1, 8 samples)",
    )


def test_one_inside_another_sees_the_same():
    inner = []

    def f(x):
        inner.append(explain(torch.sin)(x))
        return x.cos()

    outer = explain(vmap(f))(rand(8, 3))
    assert [call.name for call in inner[0].calls] == ["sin"]
    assert [call.name for call in outer.calls] == ["sin", "cos"]


def test_threads_see_their_own():
    reports = {}

    def run(name):
        f = getattr(torch, name)
        for _ in range(20):
            reports[name] = explain(vmap(lambda x: f(x)))(rand(8, 3))

    threads = [threading.Thread(target=run, args=(name,)) for name in ("sin", "cos", "exp")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: [c.name for c in each.calls] for name, each in reports.items()} == {
        "sin": ["sin"],
        "cos": ["cos"],
        "exp": ["exp"],
    }


def test_inside_a_profiler_memory_is_the_profilers():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        report = explain(vmap(torch.sin))(rand(3))
    assert report.peak is None and report.calls[0].allocated is None
    assert "time" in str(report)


def test_functions_of_pytorch_have_their_own_names():
    assert explain(torch.sin)(rand(3)).name == "sin"


def test_inside_of_a_compiled_function():
    torch._dynamo.reset()
    seen = []

    @torch.compile(backend="eager")
    def f(x):
        seen.append(explain(vmap(torch.log))(x))
        seen.append(nans(vmap(torch.log))(-x))
        return x + 1

    x = rand(3).abs() + 1
    assert torch.equal(f(x), x + 1)
    report, found = seen
    assert [call.name for call in report.calls] == ["log"]
    assert report.calls[0].transforms == ("vmap(level 1, 3 samples)",)
    assert report.calls[0].place.file == __file__
    assert found.first[0].samples == ((0,), (1,), (2,))
