"""How a checkpoint keeps its inputs until it computes again."""

from typing import Any

import torch
from torch.autograd import Function
from torch.utils import checkpoint

from functorch_ext._releases import since
from functorch_ext._releases.autograd_function import plain_apply

# The custom function on whose node the inputs are kept, in releases that have one.
_saver: Any = None if since((2, 12)) else checkpoint._NoopSaveInputs  # type: ignore[attr-defined]


def keep_inputs_untransformed(replace: Any) -> None:
    """Has the inputs kept as they are, whatever transforms run: nothing is computed of them."""
    if _saver is None:
        return

    def apply(*args: Any) -> Any:
        return plain_apply(_saver, *args)

    def jvp(ctx: Any, *_: Any) -> Any:
        return torch.zeros(0)

    assert _saver.jvp is Function.jvp
    why = "a checkpoint keeps its inputs on a node, which is no part of the program"
    replace(_saver, "apply", staticmethod(apply), why)
    replace(_saver, "jvp", staticmethod(jvp), why)
