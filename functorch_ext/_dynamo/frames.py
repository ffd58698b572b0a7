"""Calls of our transforms that Dynamo doesn't take into its graph.

It breaks the graph there, and Python calls the transform. Whatever runs inside belongs to it:
Dynamo must compile neither our code nor the function that is transformed, which gets our tensors.
"""

import sys
import types
from collections.abc import Iterator

from torch._C._dynamo.eval_frame import set_code_exec_strategy
from torch._dynamo import trace_rules

import functorch_ext
from functorch_ext._dynamo.suspension import ALONE
from functorch_ext._releases.dynamo_frames import inlined_folders

_FOLDER = f"{functorch_ext.__path__[0]}/"

# The modules whose functions call those of the program.
_CALLERS = (
    "_dynamo.polyfills",
    "_dynamo.entry",
    "_dynamo.second_order",
    "forward",
    "functionalize",
    "jacobian",
    "nn",
    "reverse",
    "vmap",
)


def install() -> None:
    """Has Dynamo leave frames of ours alone, and what they call."""
    # Not compiled as frames, but traced when called from a frame that is compiled.
    trace_rules.add(functorch_ext.__name__)
    inlined_folders.add(_FOLDER)
    for name in _CALLERS:
        for code in _codes_of(sys.modules[f"functorch_ext.{name}"]):
            set_code_exec_strategy(code, ALONE)


def _codes_of(module: types.ModuleType) -> Iterator[types.CodeType]:
    """The code of everything that a module of ours defines."""
    for value in vars(module).values():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        members = vars(value).values() if isinstance(value, type) else (value,)
        for member in members:
            if isinstance(member, types.FunctionType):
                yield from _with_nested(member.__code__)


def _with_nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _with_nested(constant)
