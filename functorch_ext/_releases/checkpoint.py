"""How a checkpoint keeps its inputs until it computes again."""

from collections.abc import Callable
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


# What a checkpoint's forward pass is, before and after its function.
Prepare = Callable[[Callable[..., Any], Any, Any], tuple[Callable[..., Any], Any, Any]]

if since((2, 14)):
    GENERATOR = "_checkpoint_without_reentrant_generator_impl"

    def preparing(plain: Callable[..., Any], prepare: Prepare) -> Callable[..., Any]:
        """The generator with a function and arguments that are made of the program's."""

        def generator(function: Callable[..., Any], args: Any, kwargs: Any, **options: Any) -> Any:
            return plain(*prepare(function, args, kwargs), **options)

        return generator

else:
    GENERATOR = "_checkpoint_without_reentrant_generator"

    def preparing(plain: Callable[..., Any], prepare: Prepare) -> Callable[..., Any]:
        """The generator with a function and arguments that are made of the program's."""

        def generator(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            function, args, kwargs = prepare(function, args, kwargs)
            return plain(function, *args, **kwargs)

        return generator
