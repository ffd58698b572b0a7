"""A Jacobian and the value it belongs to, in one pass."""

import functools
from collections.abc import Callable
from typing import Any

from functorch_ext._arguments import Argnums, keeping_output
from functorch_ext._chunk_sizes import ChunkSize
from functorch_ext.jacobian import jacfwd, jacrev


def value_and_jacrev(
    func: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    chunk_size: ChunkSize = None,
) -> Callable[..., tuple[Any, Any]]:
    """The output of a function and its Jacobian by reverse mode.

    Args:
        func: As for :func:`jacrev`.
        argnums: As for :func:`jacrev`.
        has_aux: As for :func:`jacrev`.
        chunk_size: As for :func:`jacrev`.

    Returns:
        A function that returns ``(value, jacobian)``, or ``((value, aux), jacobian)`` with
        ``has_aux``.

    Raises:
        RuntimeError: as for :func:`jacrev`.

    Example::

        >>> value_and_jacrev(torch.cos)(torch.zeros(1))
        (tensor([1.]), tensor([[-0.]]))
    """
    jacobian = jacrev(keeping_output("value_and_jacrev", func, has_aux), argnums, has_aux=True,
                      chunk_size=chunk_size)  # fmt: skip
    return _value_first(func, jacobian)


def value_and_jacfwd(
    func: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    randomness: str = "error",
    chunk_size: ChunkSize = None,
) -> Callable[..., tuple[Any, Any]]:
    """The output of a function and its Jacobian by forward mode.

    Args:
        func: As for :func:`jacfwd`.
        argnums: As for :func:`jacfwd`.
        has_aux: As for :func:`jacfwd`.
        randomness: As for :func:`jacfwd`.
        chunk_size: As for :func:`jacfwd`.

    Returns:
        As :func:`value_and_jacrev`.

    Raises:
        RuntimeError: as for :func:`jacfwd`.

    Example::

        >>> value_and_jacfwd(torch.exp)(torch.zeros(1))
        (tensor([1.]), tensor([[1.]]))
    """
    jacobian = jacfwd(keeping_output("value_and_jacfwd", func, has_aux), argnums, has_aux=True,
                      randomness=randomness, chunk_size=chunk_size)  # fmt: skip
    return _value_first(func, jacobian)


def _value_first(
    func: Callable[..., Any], jacobian: Callable[..., Any]
) -> Callable[..., tuple[Any, Any]]:
    @functools.wraps(func)
    def value_and(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        found, value = jacobian(*args, **kwargs)
        return value, found

    return value_and
