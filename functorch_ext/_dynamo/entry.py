"""Where our transforms and Dynamo's view of them part."""

from typing import Any

# Dynamo takes this very object for False. A transform asks it in front of what Dynamo can't trace.
EAGER = object()


def call_transform(
    transform: str, func: Any, options: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict
) -> Any:
    """Calls a transform of a function; Dynamo makes it a node of its graph instead."""
    import functorch_ext
    from functorch_ext import _sample_gradients

    positional, names = _OPTIONS[transform]
    named = dict(zip(names, options[positional:], strict=True))
    name, _, method = transform.partition(".")
    make = _sample_gradients.REDUCTIONS.get(name) or getattr(functorch_ext, name)
    made = make(func, *options[:positional], **named)
    return (getattr(made, method) if method else made)(*args, **kwargs)


# The options of each: how many by position, and the names of the others.
_OPTIONS: dict[str, tuple[int, tuple[str, ...]]] = {
    "vmap": (3, ("chunk_size", "axis_size", "kwarg_dims")),
    "grad": (2, ()),
    "grad_and_value": (2, ()),
    "jacrev": (1, ("has_aux", "chunk_size")),
    "jacfwd": (2, ("chunk_size", "randomness")),
    "hessian": (1, ("has_aux", "chunk_size")),
    "divergence": (1, ("chunk_size",)),
    "hessian_diag": (1, ("chunk_size",)),
    "laplacian": (1, ("weights", "chunk_size")),
    "hvp.at": (1, ()),
    "vhp.at": (1, ()),
    "ggnvp.at": (1, ()),
    "norms_of": (1, ()),
    "clipped_sum_of": (1, ()),
}
