"""How programs of the corpus are written down, run and judged."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

THEMES = (
    *("vmap", "reverse", "forward", "jacobians", "nested", "containers", "modules", "training"),
    *("beyond", "around", "repeated"),
)
_COMPILE_PARTS = ("around", "repeated")  # in these themes programs compile what they want compiled


class Tools(NamedTuple):
    """What a program is made with: the transforms, and ``compiled`` as a decorator."""

    F: Any
    compiled: Callable[..., Any]


@dataclass(frozen=True)
class Program:
    """``build(tools)`` makes a function and its arguments; both are new each time."""

    name: str
    theme: str
    build: Callable[[Tools], tuple[Callable[..., Any], tuple[Any, ...]]]
    around: bool  # it compiles parts itself; else all of it is compiled


_programs: dict[str, Program] = {}


def program(build: Callable[..., Any]) -> Callable[..., Any]:
    """Adds a program."""
    theme = build.__module__.rpartition("programs_")[2]
    name = f"{theme}-{build.__name__}"
    assert name not in _programs, name
    _programs[name] = Program(name, theme, build, theme in _COMPILE_PARTS)
    return build


def all_programs() -> list[Program]:
    """The corpus."""
    for theme in THEMES:
        importlib.import_module(f"test.compile.programs_{theme}")
    return list(_programs.values())


def rand(*shape: int) -> Tensor:
    """Random numbers whose rounding errors don't matter."""
    return torch.randn(*shape, dtype=torch.float64)


def _results(tools: Tools, program: Program, wrap: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    function, args = program.build(tools)
    torch.manual_seed(1)
    outcomes = []
    wrapped = wrap(function)
    for _ in range(2):  # the second call runs what the first has compiled
        outcomes.append(pytree.tree_map_only(Tensor, lambda x: x.detach().clone(), wrapped(*args)))
    gradients = [leaf.grad for leaf in pytree.tree_leaves(args) if isinstance(leaf, Tensor)]
    return outcomes, args if not program.around else None, gradients


def judge(program: Program, transforms: Any, **options: Any) -> str:
    """ "right", "wrong" or the error's first line, as compared with the program run eagerly."""
    torch.compiler.reset()
    expected = _results(Tools(transforms, lambda f: f), program, lambda f: f)
    compile_ = lambda f: torch.compile(f, **options)
    try:
        if program.around:
            found = _results(Tools(transforms, compile_), program, lambda f: f)
        else:
            found = _results(Tools(transforms, lambda f: f), program, compile_)
    except Exception as error:
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else ''}"
    try:
        torch.testing.assert_close(
            pytree.tree_leaves(found), pytree.tree_leaves(expected), rtol=1e-6, atol=1e-8
        )
    except AssertionError:
        return "wrong"
    return "right"
