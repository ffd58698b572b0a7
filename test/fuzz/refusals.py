"""The errors that functorch_ext may answer a right program with. All others count as wrong."""

import re

REFUSALS = [
    # What the samples share can't hold what differs between them.
    r"would write in-place a value that differs between samples into a tensor from outside",
    r"would write in place, inside a transform, to a tensor from outside",
    # Shapes and control flow that would differ between samples.
    r"the shape of the results? of aten::\w+(\.\w+)? depends? on the data",
    r"a number is read out of a batched tensor",
    r"indexing with a boolean mask that differs between samples",
    # Random operators are only allowed where the program says what they mean.
    r"called random operation",
    # PyTorch's own: the strides of a sample depend on those of the batch.
    r"view size is not compatible with input tensor's size and stride",
    # PyTorch's own: formulas that it lacks.
    r"Trying to use forward AD with [\w:]+ that does not support it",
    r"a tangent flows into \S+, which has no derivative of forward mode",
]
# PyTorch's own: a program overwrites what the backward pass needs.
OVERWRITTEN = [
    r"modified by an inplace operation",
    r"is a view and is being modified inplace",
]
WRITES = re.compile(r"_\(|\]\s*[-+*/]?=[^=]|\+=")


def is_refusal(error: Exception, program: str) -> bool:
    patterns = REFUSALS + (OVERWRITTEN if WRITES.search(program) else [])
    return re.search("|".join(patterns), str(error)) is not None
