"""A look behind the tensors of a transform."""

from torch import Tensor

from functorch_ext import _C


def debug_unwrap(tensor: Tensor, *, recurse: bool = True) -> Tensor:
    """The tensor that a tensor of a transform stands for: inside ``vmap``, all samples.

    For debuggers and ``print``: a function that computes with the result has no defined meaning
    under its transforms.

    Args:
        tensor: Any tensor.
        recurse: Whether to go on through all transforms. Otherwise to the next tensor below.

    Returns:
        The tensor below, whose samples may lie along any dimension; ``tensor`` itself where it
        stands for no other. ``grad``, ``vjp`` and a single ``jvp`` work on plain tensors: theirs
        are such.

    Example::

        >>> shapes = []
        >>> def f(x):
        ...     shapes.append((tuple(x.shape), tuple(debug_unwrap(x).shape)))
        ...     return x
        >>> y = vmap(f)(torch.zeros(5, 3))
        >>> shapes
        [((3,), (5, 3))]
    """
    while (description := _C.describe(tensor)) is not None:
        tensor = description[0]
        if not recurse:
            break
    return tensor
