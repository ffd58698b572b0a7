"""The transforms that run around a place in the program, by name: ``vmap(level 1, 8 samples)``."""

import os
import re
import types
from collections.abc import Callable

from functorch_ext import _C
from functorch_ext._inspect.places import frames, is_ours

# (kind, depth, number of samples), as the engine says it of a level.
Level = tuple[str, int, int]

_Name = str | Callable[[types.FrameType], str]


def _named_by_closure(frame: types.FrameType) -> str:
    found = frame.f_locals.get("transform") or frame.f_locals["traced"][0]
    return str(found)


def _named_by_self(frame: types.FrameType) -> str:
    return str(frame.f_locals["self"]._transform)


# The functions in which transforms run what they transform, and the kinds of levels they may make,
# in order. (Reverse mode has one of values inside of torch.func's transforms alone.)
_REVERSE = ("reverse",)
_FORWARD = ("values",)
_TRANSFORMS: dict[str, tuple[_Name, tuple[str, ...]]] = {
    "vmap.<locals>.mapped": ("vmap", ("vmap",)),
    "grad.<locals>.gradient": ("grad", _REVERSE),
    "grad_and_value.<locals>.gradient_and_value": ("grad_and_value", _REVERSE),
    "vjp": ("vjp", _REVERSE),
    "vjp.<locals>.pullback": ("vjp's pullback", ()),
    "jvp": ("jvp", _FORWARD),
    "linearize": ("linearize", _REVERSE),
    "linearize.<locals>.push_forward": ("linearize's map", ()),
    "_by_rows.<locals>.jacobian": (_named_by_closure, ("basis", "reverse")),
    "_by_columns.<locals>.jacobian": (_named_by_closure, ("basis", "values")),
    "functionalize.<locals>.functional": ("functionalize", ("functional",)),
    "jet": ("jet", ("basis",)),
    "laplacian.<locals>.trace": ("laplacian", ("basis",)),
    "hessian_diag.<locals>.diagonal": ("hessian_diag", ()),
    "divergence.<locals>.of_point": ("divergence", ("basis", "values")),
    "trace_estimate": ("trace_estimate", ()),
    "CurvatureProduct.__call__": (_named_by_self, ()),
    "CurvatureProduct.at": (_named_by_self, ()),
    "SparseDerivative.__call__": (_named_by_self, ()),
    "per_sample_grads.<locals>.gradients": ("per_sample_grads", ()),
    "per_sample_grad_norms.<locals>.norms": ("per_sample_grad_norms", ()),
    "clipped_grad_sum.<locals>.clipped": ("clipped_grad_sum", ()),
    "fixed_point": ("fixed_point", ()),
}

# Functions of the same names that call those.
_FOR_DYNAMO = os.path.join("functorch_ext", "_dynamo", "polyfills.py")

# The same of torch.func's.
_THEIRS = re.compile(
    r"(vmap|grad|grad_and_value|jacrev|jacfwd|functionalize)\.<locals>\.wrap\w+|(vjp|jvp)|hessian"
)
_THEIR_NAME = "torch.func."
_THEIR_FOLDER = os.path.join("torch", "_functorch", "")

_COUNTED = {"vmap": ("sample", "samples"), "basis": ("vector", "vectors")}
_WITHOUT_NAME = {"values": "jvp", "functional": "functionalize", "basis": "basis"}


def labelled(name: str, level: Level) -> str:
    """A transform with the level that it made."""
    kind, depth, size = level
    parts = [f"level {depth}"]
    if kind in _COUNTED and size >= 0:
        parts.append(f"{size} {_COUNTED[kind][size != 1]}")
    return f"{name}({', '.join(parts)})"


def name_of_level(level: Level) -> str:
    """A level whose transform isn't known by name; ``plain`` for plain tensors."""
    kind, depth, _ = level
    return labelled(_WITHOUT_NAME.get(kind, kind), level) if depth else "plain"


def running_transforms(
    frame: types.FrameType | None, trace: types.TracebackType | None = None
) -> tuple[str, ...]:
    """The transforms that run around a frame, the outermost first.

    With the traceback of an error, those of torch.func's that it has left below the frame.
    """
    found = [each for each in map(_transform_of, frames(frame)) if each is not None]
    found.reverse()
    labels = _with_levels(found)
    while trace is not None:
        below = _transform_of(trace.tb_frame)
        if below is not None and below[0].startswith(_THEIR_NAME):
            labels.append(below[0])
        trace = trace.tb_next
    return tuple(labels)


def _with_levels(found: list[tuple[str, tuple[str, ...]]]) -> list[str]:
    """The names, with the running levels that these transforms have made."""
    levels = _C.running_levels()
    made: dict[int, Level] = {}
    left = [level for level in levels if level[0] != "values"]
    for index, (_, kinds) in enumerate(found):
        if left and left[0][0] in kinds:
            made[index] = left.pop(0)
    # Only a derivative inside of another's has such a level.
    values = [level for level in levels if level[0] == "values"]
    for mode in ("values", "reverse"):
        for index in reversed(range(len(found))):
            if values and mode in found[index][1] and index not in made:
                made[index] = values.pop()
    labels: list[str] = []
    for index, (name, _) in enumerate(found):
        label = labelled(name, made[index]) if index in made else name
        # hessian is made of two.
        if not (labels and label == "hessian" and labels[-1].startswith("hessian")):
            labels.append(label)
    # Another thread's frames are not among those of this one.
    return [*labels, *map(name_of_level, left + values)]


def _transform_of(frame: types.FrameType) -> tuple[str, tuple[str, ...]] | None:
    code = frame.f_code
    if code.co_filename.endswith(_FOR_DYNAMO):
        return None
    if is_ours(code):
        name, kinds = _TRANSFORMS.get(code.co_qualname, (None, ()))
        return None if name is None else (name if isinstance(name, str) else name(frame), kinds)
    if _THEIR_FOLDER in code.co_filename and (found := _THEIRS.fullmatch(code.co_qualname)):
        name = next(filter(None, found.groups()), None)
        return None if name is None else (_THEIR_NAME + name, ())
    return None
