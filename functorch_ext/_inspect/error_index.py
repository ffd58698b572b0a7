"""Where the documentation explains an error: `docs/guides/errors.md`, by words of the message."""

_PAGE = "guides/errors.html"

# The anchor of each entry that has an example, and what its messages have in common.
ENTRIES: dict[str, tuple[str, ...]] = {
    "data-dependent-control-flow": ("a number is read out of a batched tensor",),
    "shape-depends-on-data": ("has a shape that depends on the data",),
    "written-outside": ("into a tensor from outside, which all samples share",),
    "escaped-tensor": ("a batched tensor outlived its vmap",),
    "batch-norm": ("would write running statistics that differ between samples",),
    "randomness": ("called random operation while in randomness error mode",),
    "memory-is-read": ("reads the memory of a batched tensor",),
    "handed-out-memory": ("whose memory was handed out",),
    "sizes-differ": ("to have the same size in the mapped dimension",),
    "in-dims": ("in_dims is not compatible with the structure", "for an input but the input is of"),
    "no-samples": ("expected at least one Tensor to vmap over",),
    "output-not-a-tensor": (
        "the function must only return Tensors",
        "can not return a BatchedTensor when out_dim is None",
    ),
    "axis-name": ("no vmap with axis_name=",),
    "not-a-scalar": ("to return a scalar Tensor",),
    "aux": ("to return a Tensor, got <class 'tuple'>",),
    "argnums": ("Got argnum=",),
    "not-differentiable": ("only Tensors of floating point dtype can require gradients",),
    "tangents": ("doesn't match the shape and dtype of its primal",),
    "no-derivative": ("has no derivative",),
    "backward-inside": ("backward() inside vmap",),
    "keys": ("with strict=True the names must be those",),
    "different-models": ("from each model to have the same",),
    "jit-values": ("the function reads the value of a tensor",),
    "no-fixed-point": ("no fixed point was found",),
    "unsolved-equations": ("the linear equations of an implicit derivative have no solution",),
    "functionalize-outside": ("would write to a tensor from outside the function",),
}


def page_of(message: str) -> str | None:
    """The page and anchor that explain an error of this message, or None."""
    for anchor, phrases in ENTRIES.items():
        if any(phrase in message for phrase in phrases):
            return f"{_PAGE}#{anchor}"
    return None
