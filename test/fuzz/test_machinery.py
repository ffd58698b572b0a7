"""The fuzzer itself: seeds, verdicts, smaller programs, crashes."""

import sys
from types import SimpleNamespace

import pytest

from functorch_ext import vmap
from test.fuzz import worker
from test.fuzz.generate import generate
from test.fuzz.judge import ACCEPTED, CRASH, REFUSED, RIGHT, STATE, UNJUDGED, WRONG, Verdict, judge
from test.fuzz.minimise import minimise
from test.fuzz.program import Function, Program, Statement


def program(*body, result="v1,", refused=False):
    function = Function("program", ["x0"], list(body), result)
    return Program(0, [("x0", "torch.randn(3, 2, dtype=torch.float64)")], function, refused)


def mapped(*body, result):
    return Statement("v1 = vmap(f1)(x0)", ("v1",), Function("f1", ["v2"], list(body), result))


def test_a_seed_gives_one_program():
    assert generate(7).runnable() == generate(7).runnable() != generate(8).runnable()


def test_programs_run_as_they_are_printed():
    exec(generate(3).runnable(), {"print": lambda *args: None})


def with_vmap(vmap):
    return SimpleNamespace(vmap=vmap)


def plus_one(function):
    return lambda x: vmap(function)(x) + 1


def plus_tiny(function):
    return lambda x: vmap(function)(x) + 1e-5


SINES = program(mapped(Statement("v3 = v2.sin()", ("v3",)), result="v3"))


def test_right_and_wrong():
    assert judge(SINES).kind == RIGHT
    assert judge(SINES, with_vmap(plus_one)).kind == WRONG


def test_refusals():
    mask = Statement("v3 = v2[v2 > 0].sum()", ("v3",))
    assert judge(program(mapped(mask, result="v3"))).kind == REFUSED
    never = program(mapped(Statement("v3 = v2.mm(v2)", ("v3",)), result="v3"), refused=True)
    assert judge(never).kind == REFUSED
    assert judge(never, with_vmap(lambda function: lambda x: x)).kind == ACCEPTED


def test_what_rounding_decides_is_not_judged():
    """An exact 0 is computed as rounding has it, and divided by 1e-12."""
    rounded = Statement("v3 = F.normalize((v2 * 3 / 3 - v2).sum()[None], dim=0)", ("v3",))
    noise = program(mapped(rounded, result="v3"))
    assert judge(noise, with_vmap(plus_tiny)).kind == UNJUDGED
    assert judge(noise, with_vmap(plus_one)).kind == WRONG


def test_state_left_behind():
    kept = []
    keep = lambda function: vmap(lambda x: function(kept.append(x) or x))
    assert judge(SINES, with_vmap(keep)).kind == STATE
    kept.clear()


def test_minimised():
    body = [Statement("v3 = v2.sin()", ("v3",)), Statement("v4 = v3 * 2", ("v4",))]
    large = program(mapped(*body, result="v4"), result="v1, x0,")
    judge_wrong = lambda candidate: judge(candidate, with_vmap(plus_one))
    small = minimise(large, judge_wrong(large), judge_wrong)
    assert list(small.main.lines()) == [
        "def program(x0):",
        "    def f1(v2):",
        "        return v2",
        "    v1 = vmap(f1)(x0)",
        "    return v1,",
    ]


def test_crashes_are_survived():
    crash = Statement("import os; os.abort()")
    large = program(Statement("v1 = x0.sin()", ("v1",)), crash)
    small = minimise(large, Verdict(CRASH))
    assert [each.text for each in small.main.body] == [crash.text]


@pytest.mark.slow
def test_a_crash_costs_one_program(monkeypatch):
    monkeypatch.setattr(worker, "COMMAND", [sys.executable, "-c", DYING])
    found = dict(worker.verdicts(0, 3))
    assert found[1] == Verdict(CRASH, "SIGABRT") and len(found) == 3


DYING = """
import os, sys
from test.fuzz import generate, worker
real = generate.generate
generate.generate = lambda seed: os.abort() if seed == 1 else real(seed)
worker.serve(*map(int, sys.argv[-3:]))
"""
