"""Writes the table of docs/control-flow.md: operators of control flow under each transform.

Each program runs with ours and with torch.func, and is compared with a loop over samples of the
same program in plain Python::

    PYTHONPATH=. python docs/list_control_flow.py

Each package answers in a process of its own: torch.func in one that never imports ours.
"""

from pathlib import Path

import torch
from two_packages import answers_of, filled, main

from test import oracle
from test.control_flow.programs import PROGRAMS

PAGE = Path(__file__).parent / "control-flow.md"
START, END = "<!-- table: written by docs/list_control_flow.py -->\n", "<!-- end -->"


def total(function):
    return lambda *args: function(*args).sum()


def of_x(function, y):
    return lambda x: function(x, y)


# Of a function of two vectors: the transform by the functions of a package, and by the oracle.
TRANSFORMS = {
    "`vmap`": (lambda ft, f: ft.vmap(f), oracle.loop),
    "`vmap(vmap)`": (
        lambda ft, f: ft.vmap(ft.vmap(f, (0, None)), (None, 0)),
        lambda f: oracle.loop(oracle.loop(f, (0, None)), (None, 0)),
    ),
    "`grad`": (lambda ft, f: ft.grad(total(f)), lambda f: oracle.grad(total(f))),
    "`vmap(grad)`": (
        lambda ft, f: ft.vmap(ft.grad(total(f))),
        lambda f: oracle.loop(oracle.grad(total(f))),
    ),
    "`grad(vmap)`": (
        lambda ft, f: ft.grad(total(ft.vmap(f))),
        lambda f: oracle.grad(total(oracle.loop(f))),
    ),
    "`jvp`": (
        lambda ft, f: lambda x, y: ft.jvp(of_x(f, y), (x,), (y,))[1],
        lambda f: lambda x, y: oracle.jvp(of_x(f, y), x, y)[1],
    ),
    "`vmap(jvp)`": (
        lambda ft, f: ft.vmap(lambda x, y: ft.jvp(of_x(f, y), (x,), (y,))[1]),
        lambda f: oracle.loop(lambda x, y: oracle.jvp(of_x(f, y), x, y)[1]),
    ),
    "`jacrev`": (lambda ft, f: ft.jacrev(f), oracle.jacobian),
    "`jacfwd`": (lambda ft, f: ft.jacfwd(f), oracle.jacobian),
    "`hessian`": (lambda ft, f: ft.hessian(total(f)), lambda f: oracle.hessian(total(f))),
    "`functionalize`": (lambda ft, f: ft.functionalize(f), lambda f: f),
}


def outcome(package, transform, program):
    """*right*, *wrong* or *error*."""
    ours, expected = TRANSFORMS[transform]
    torch.manual_seed(0)
    x, y = oracle.rand(6, 3), oracle.rand(6, 3)
    if "vmap" not in transform:
        x, y = x[0], y[0]
    wanted = expected(program.plain)(x, y)
    torch._dynamo.reset()
    try:
        found = ours(package, program.with_operator)(x, y)
    except Exception:
        return "error"
    try:
        oracle.assert_close(found, wanted)
    except AssertionError:
        return "wrong"
    return "right"


def answers(package):
    """The outcome of each program under each transform."""
    return {
        name: [outcome(package, transform, program) for transform in TRANSFORMS]
        for name, program in PROGRAMS.items()
    }


def page():
    """The page, with ours / torch.func's answers in its table."""
    rows = [f"| | {' | '.join(TRANSFORMS)} |\n", "| --- |" + " --- |" * len(TRANSFORMS) + "\n"]
    ours, theirs = answers_of(__file__, "functorch_ext"), answers_of(__file__, "torch.func")
    for name in PROGRAMS:
        cells = [" / ".join(both) for both in zip(ours[name], theirs[name], strict=True)]
        rows.append(f"| {name} | {' | '.join(cells)} |\n")
    return filled(PAGE, START, rows, END)


if __name__ == "__main__":
    main(PAGE, answers, page)
