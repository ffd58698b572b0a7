"""``jit``: a function as a compiled graph."""

import functools
from collections.abc import Callable
from typing import Any


def jit(
    func: Callable[..., Any] | None = None,
    *,
    static_argnums: int | tuple[int, ...] = (),
    static_argnames: str | tuple[str, ...] = (),
    dynamic: bool = False,
    backend: str = "inductor",
) -> Callable[..., Any]:
    """Compiles ``func``: it is traced at the first call of each signature, and later calls run the
    compiled graph.

    The signature is all but the values of tensors: containers, dtypes, shapes, strides, devices,
    which tensors require grad, grad mode, autocast, and arguments that aren't tensors by value.
    While it is traced, ``func`` gets tensors without values: side effects of Python happen then and
    not at later calls, and control flow can't depend on values.

    Tensors that ``func`` closes over, as the parameters and buffers of modules, are inputs of the
    graph: later calls see their values at the time of the call. Writes to arguments and closed-over
    tensors are kept. Random operators draw anew at each call. ``.backward()`` of the result runs a
    compiled backward pass. Inside other transforms, under ``make_fx`` and inside another ``jit``
    the function runs as it is, and becomes part of what is traced there.

    Args:
        func: Takes and returns tensors, or containers of them, and other objects as they are. May
            be left out: ``@jit(dynamic=True)``.
        static_argnums: Positions of arguments that are compared by value; they must be hashable.
        static_argnames: Names of such arguments.
        dynamic: Trace with symbolic sizes, so that calls with other sizes need no new trace.
        backend: ``"inductor"`` compiles to machine code, ``"graph"`` runs the optimized graph.

    Returns:
        A function like ``func``, with a method ``lower(*args)``, whose result shows the graph
        (``as_text()``, ``operators()``) and compiles it (``compile()``).

    Raises:
        TypeError: an argument isn't hashable, or is a tensor of a subclass.
        RuntimeError: the function reads values of tensors (the message has the line), closes over
            a tensor that was computed from others that require grad, or there is no C++ compiler.

    Example::

        >>> square = functorch_ext.jit(lambda x: x * x, backend="graph")
        >>> square(torch.tensor(3.0))
        tensor(9.)
    """
    options: dict[str, Any] = {
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
        "dynamic": dynamic,
        "backend": backend,
    }
    if func is None:
        return functools.partial(jit, **options)
    from functorch_ext._jit.api import make

    return make(func, **options)
