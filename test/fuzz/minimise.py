"""Makes a failing program smaller while it fails in the same way."""

import copy
import faulthandler
import os
import re
import resource
from collections.abc import Iterator

from test.fuzz.judge import CRASH, Verdict, judge
from test.fuzz.program import VARIABLE, Function, Program, Statement, names_in

MOST_TRIALS = 1500


def minimise(program: Program, verdict: Verdict, judge=judge) -> Program:
    trials = 0
    smaller = True
    while smaller:
        smaller = False
        for candidate in candidates(program):
            trials += 1
            if trials > MOST_TRIALS:
                return program
            if judged(candidate, verdict.kind == CRASH, judge).same_as(verdict):
                program, smaller = candidate, True
                break
    return program


def judged(program: Program, may_crash: bool, judge) -> Verdict:
    if may_crash:
        return in_a_child(program, judge)
    try:
        return judge(program)
    except Exception as error:  # the candidate isn't a program
        return Verdict("invalid", str(error))


def in_a_child(program: Program, judge) -> Verdict:
    """Judges in a process of its own."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            judge(program)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return Verdict(CRASH if os.WIFSIGNALED(status) else "survived")


def functions(function: Function) -> Iterator[Function]:
    yield function
    for statement in function.body:
        if statement.inner:
            yield from functions(statement.inner)


def candidates(program: Program) -> Iterator[Program]:
    """Programs that are a little smaller."""
    if program.requires_grad:
        changed = copy.deepcopy(program)
        changed.requires_grad = False
        yield changed
    count = sum(1 for _ in functions(program.main))
    for which in range(count):
        function = list(functions(program.main))[which]
        for at in reversed(range(len(function.body))):
            yield from without(program, which, at)
        yield from fewer_results(program, which)
    yield from fewer_inputs(program)
    yield from smaller_inputs(program)
    yield from simpler_calls(program)


def edited(program: Program, which: int) -> tuple[Program, Function]:
    changed = copy.deepcopy(program)
    return changed, list(functions(changed.main))[which]


def without(program: Program, which: int, at: int) -> Iterator[Program]:
    """Without one statement: alone, or with another variable in place of what it defines."""
    changed, function = edited(program, which)
    statement = function.body.pop(at)
    lost = set(statement.defines)
    used = set().union(names_in(function.result), *(each.uses() for each in function.body))
    if not lost & used:
        yield changed
        return
    for other in sorted(statement.uses(), reverse=True):
        changed, function = edited(program, which)
        function.body.pop(at)
        for name in lost:
            rename(function, name, other)
        yield changed
    if statement.inner:
        yield from inlined(program, which, at)


def inlined(program: Program, which: int, at: int) -> Iterator[Program]:
    """The body of an inner function in place of the call of a transform."""
    changed, function = edited(program, which)
    statement = function.body[at]
    arguments = names_in(statement.text) - set(statement.defines)
    inner = statement.inner
    ordered = [each for each in VARIABLE.findall(statement.text) if each in arguments]
    for parameter, argument in zip(inner.parameters, ordered):
        rename(inner, parameter, argument)
    results = sorted(names_in(inner.result))
    for name, result in zip(statement.defines, results):
        rename(function, name, result)
    function.body[at : at + 1] = inner.body
    yield changed


def rename(function: Function, name: str, other: str) -> None:
    pattern = re.compile(rf"\b{name}\b")
    function.result = pattern.sub(other, function.result)
    function.parameters = [pattern.sub(other, each) for each in function.parameters]
    for statement in function.body:
        statement.text = pattern.sub(other, statement.text)
        statement.defines = tuple(pattern.sub(other, each) for each in statement.defines)
        if statement.inner:
            rename(statement.inner, name, other)


def split(result: str, by: str) -> list[str]:
    return [each for each in result.strip(", ").split(by) if each]


def fewer_results(program: Program, which: int) -> Iterator[Program]:
    function = list(functions(program.main))[which]
    terms = split(function.result, " + ")
    for i in range(len(terms)) if len(terms) > 1 else ():
        changed, function = edited(program, which)
        function.result = " + ".join(terms[:i] + terms[i + 1 :])
        yield changed
    if which == 0:
        names = split(program.main.result, ", ")
        for i in range(len(names)) if len(names) > 1 else ():
            changed, function = edited(program, which)
            function.result = ", ".join(names[:i] + names[i + 1 :]) + ","
            yield changed
    yield from fewer_mapped_results(program, which)


def fewer_mapped_results(program: Program, which: int) -> Iterator[Program]:
    """One result of a mapped function that has several."""
    function = list(functions(program.main))[which]
    for at, statement in enumerate(function.body):
        if not statement.inner or "= vmap(" not in statement.text or len(statement.defines) < 2:
            continue
        for i, _ in enumerate(statement.defines):
            changed, outer = edited(program, which)
            found = outer.body[at]
            names = split(found.inner.result, ", ")
            if len(names) != len(found.defines):
                continue
            found.inner.result = names[i]
            dims = re.search(r"out_dims=\(([^)]*)\)", found.text)
            call = found.text.split(" = ", 1)[1]
            if dims:
                call = call.replace(dims[0], f"out_dims={dims[1].split(',')[i].strip()}")
            found.text = f"{found.defines[i]} = {call}"
            found.defines = (found.defines[i],)
            yield changed


def fewer_inputs(program: Program) -> Iterator[Program]:
    used = names_in(program.main.result).union(*(each.uses() for each in program.main.body))
    for i, (name, _) in enumerate(program.inputs):
        if name not in used:
            changed = copy.deepcopy(program)
            del changed.inputs[i]
            del changed.main.parameters[i]
            yield changed


def smaller_inputs(program: Program) -> Iterator[Program]:
    for size in (4, 3, 2):
        for i, (name, text) in enumerate(program.inputs):
            changed = copy.deepcopy(program)
            head, _, rest = text.partition("dtype")
            changed.inputs[i] = (name, head.replace(f"{size}", f"{size - 1}") + _ + rest)
            if changed.inputs[i] != program.inputs[i]:
                yield changed
        changed = copy.deepcopy(program)
        changed.inputs = [
            (
                n,
                t.partition("dtype")[0].replace(str(size), str(size - 1))
                + "".join(t.partition("dtype")[1:]),
            )
            for n, t in program.inputs
        ]
        if changed.inputs != program.inputs:
            yield changed
    for i, (name, text) in enumerate(program.inputs):
        if not text.endswith(")") or ".flip" in text or ".expand" in text:
            changed = copy.deepcopy(program)
            changed.inputs[i] = (name, text.partition("float64)")[0] + "float64)")
            if changed.inputs[i][1] != text:
                yield changed


def simpler_calls(program: Program) -> Iterator[Program]:
    """Other transforms and options, and simpler expressions."""
    edits = [
        (r", out_dims=(\([^)]*\)|-?\d+)", ""),
        (r", in_dims=(\([-\d, ]*\)|-?\d+)", ""),
        (r", in_dims=\((-?\d+),\)", r", in_dims=\1"),
        (r", chunk_size=\d", ""),
        (r", remove='mutations_and_views'", ""),
        (r"hessian\(", "jacrev("),
        (r"jacfwd\(", "jacrev("),
        (r"= grad_and_value\((\w+)\)", r"= grad(\1, has_aux=True)"),
        (r"\.(sin|cos|tanh|square|abs|clone)\(\)", ""),
        (r"fit\((\w+),[\d,]+\)", r"\1"),
    ]
    count = sum(1 for _ in functions(program.main))
    for which in range(count):
        for at in range(len(list(functions(program.main))[which].body)):
            for pattern, text in edits:
                changed, function = edited(program, which)
                statement: Statement = function.body[at]
                simpler = re.sub(pattern, text, statement.text, count=1)
                if simpler != statement.text:
                    statement.text = simpler
                    yield changed
