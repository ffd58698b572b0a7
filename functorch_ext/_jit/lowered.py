"""A function that has been traced and can be looked at before it is compiled."""

import collections
import functools
from collections.abc import Callable
from typing import Any

from functorch_ext._jit.cost import bytes_of, flops_of
from functorch_ext._jit.signature import Arguments


class Lowered:
    """A traced function: its graph, and the way to the compiled one."""

    def __init__(self, jitted: Any, arguments: Arguments, traced: Any) -> None:
        from functorch_ext._jit.passes import optimize

        self._jitted, self._arguments, self._traced = jitted, arguments, traced
        self.graph = optimize(traced.graph)

    def as_text(self) -> str:
        """The graph as Python code: inputs are arguments, closed-over tensors, cotangents."""
        return self.graph.code.strip()

    def operators(self) -> dict[str, int]:
        """How often each operator is called."""
        nodes = self.graph.graph.nodes
        return dict(collections.Counter(str(n.target) for n in nodes if n.op == "call_function"))

    def flops(self) -> int:
        """The floating-point operations of a call, estimated."""
        return sum(flops_of(node) for node in self.graph.graph.nodes)

    def bytes(self) -> int:
        """The bytes that operators read and write, estimated; fused, they are fewer."""
        return sum(bytes_of(node) for node in self.graph.graph.nodes)

    def compile(self) -> Callable[..., Any]:
        """The compiled function, for arguments of the same signature."""
        compiled = self._jitted._compile(self._traced, self._arguments)
        key = self._arguments.key(self._jitted._dynamic)

        @functools.wraps(self._jitted._func)
        def call(*args: Any, **kwargs: Any) -> Any:
            arguments = self._jitted._arguments(args, kwargs)
            fits = arguments.key(self._jitted._dynamic) == key
            if not fits or not compiled.fits(arguments.tensors):
                raise TypeError(
                    "functorch_ext.jit: a function that was compiled for one signature was called "
                    "with arguments of another: expected tensors "
                    f"{[(tuple(t.shape), t.dtype) for t in self._arguments.tensors]}, but got "
                    f"{[(tuple(t.shape), t.dtype) for t in arguments.tensors]}."
                )
            return compiled(arguments.tensors)

        return call
