"""The pattern of a Jacobian, from the graph of its products with vectors.

The product is traced on tensors without values, as a function of the point and the vector. It is
linear in the vector, so an output can depend on an element of it only through operands that the
operators of the graph pass on. The point's values are unknown throughout, hence the pattern holds
at every point.
"""

import operator
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from functorch_ext._jit.errors import is_value_read, line_of_program
from functorch_ext._sparsity import product_rules  # noqa: F401  (registers its rules)
from functorch_ext._sparsity.pattern import MOST_MEMBERS, Pattern
from functorch_ext._sparsity.rules import Call, Value, mixed_all, patterns_of
from functorch_ext.functionalize import functionalize

_LIKE = "zeros_like ones_like new_zeros new_ones new_full full_like"
_EMPTY = "empty_like new_empty new_empty_strided empty_strided rand_like randn_like bernoulli"
_MADE, _UNSET = (frozenset(f"aten::{name}" for name in names.split()) for names in (_LIKE, _EMPTY))


class Detected:
    """What was found: a pattern per output, and the tensors whose values it rests on."""

    def __init__(self, patterns: list[Pattern], read: list[Tensor]) -> None:
        self.patterns, self._read = patterns, read
        self._versions = [tensor._version for tensor in read]
        self.rows = sum(pattern.elements for pattern in patterns)

    def holds(self) -> bool:
        """Has none of these tensors been written to?"""
        return all(x._version == v for x, v in zip(self._read, self._versions, strict=True))

    def entries(self) -> tuple[Tensor, Tensor]:
        """Rows and columns of the matrix' entries, sorted."""
        first, rows, columns = 0, [], []
        for pattern in self.patterns:
            pattern_rows, pattern_columns = pattern.everything()
            rows.append(pattern_rows + first)
            columns.append(pattern_columns)
            first += pattern.elements
        return torch.cat(rows), torch.cat(columns)


def detect(
    transform: str,
    product: Callable[..., list[Tensor]],
    points: list[Tensor],
    vectors: list[Tensor],
) -> Detected:
    """The pattern of ``product(*points, *vectors)`` by the vectors."""
    try:
        graph = _trace(product, [*points, *vectors])
    except RuntimeError as error:
        if not is_value_read(error):
            raise
        raise RuntimeError(
            f"functorch_ext.{transform}: the function reads the value of a tensor at\n"
            f"  {line_of_program(error)}\n"
            "The pattern has to hold for all values, so none is known while it is detected. "
            "Instead of `if` use torch.where, instead of .item() the tensor itself, or give the "
            "pattern."
        ) from error
    if any(_writes(node) for node in graph.graph.nodes):
        values = [n.meta["val"].detach() for n in graph.graph.nodes if n.op == "placeholder"]
        with torch.no_grad():
            graph = _trace(functionalize(graph), values)
    inputs = sum(vector.numel() for vector in vectors)
    with torch.no_grad():
        found = _Interpreter(graph, len(points), inputs).run()
    members = sum(p.members.numel() + int(p.full.sum()) * p.inputs for p in found.patterns)
    if members > 4 * MOST_MEMBERS:
        raise RuntimeError(
            f"functorch_ext.{transform}: {members} entries of the matrix can be other than zero, "
            "as far as detection knows. Give the pattern if it has fewer, or use jacfwd or hessian "
            "with a chunk_size."
        )
    return found


def _trace(function: Callable[..., Any], values: list[Tensor]) -> fx.GraphModule:
    return make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*values)


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


class _Interpreter:
    """Walks through the graph: numbers are computed where they don't depend on the point."""

    def __init__(self, graph: fx.GraphModule, points: int, inputs: int) -> None:
        self._graph, self._inputs = graph, inputs
        self._unknown, self._first = points, 0
        self._values: dict[fx.Node, Any] = {}  # containers of Value, or Python values
        self._read: list[Tensor] = []

    def run(self) -> Detected:
        for node in self._graph.graph.nodes:
            if node.op == "output":
                found = pytree.tree_leaves(self._values_of(node.args[0]))
                patterns = [self._of_output(value) for value in found]
                return Detected(patterns, self._read)
            self._values[node] = self._evaluate(node)
        raise AssertionError("a graph without an output")

    def _of_output(self, value: Value) -> Pattern:
        if value.pattern is not None:
            return value.pattern
        nothing = torch.zeros(0, dtype=torch.long)
        none = torch.zeros(value.like.numel(), dtype=torch.bool)
        return Pattern.of_pairs(nothing, nothing, none, self._inputs)

    def _values_of(self, tree: Any) -> Any:
        return fx.node.map_arg(tree, lambda node: self._values[node])

    def _evaluate(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "get_attr":
            return self._constant(node)
        args, kwargs = self._values_of((node.args, node.kwargs))
        if node.target is operator.getitem:
            return args[0][args[1]]
        values = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Value)]
        name = node.target._schema.name if isinstance(node.target, OpOverload) else ""
        if name in _MADE:
            zeros = lambda x: torch.zeros(x.like.shape, dtype=x.like.dtype)
            return self._computed(node, zeros, args, kwargs)
        if all(value.pattern is None for value in values) or name in _UNSET:
            if all(value.known is not None for value in values) and not self._draws(node):
                numbers: Callable[[Value], Tensor | None] = lambda value: value.known
                return self._computed(node, numbers, args, kwargs)
            return self._of_node(node, None)
        if not name:
            call = Call(node.target, {"args": args, "kwargs": kwargs}, self._outputs(node))
            return self._of_node(node, mixed_all(call))
        target = cast(OpOverload, node.target)
        names = [argument.name for argument in target._schema.arguments]
        call = Call(target, dict(zip(names, args)) | kwargs, self._outputs(node))
        return self._of_node(node, patterns_of(call))

    def _placeholder(self, node: fx.Node) -> Value:
        like = node.meta["val"]
        if self._unknown:
            self._unknown -= 1
            return Value(like)
        pattern = Pattern.identity(self._first, like.numel(), self._inputs)
        self._first += like.numel()
        return Value(like, pattern)

    def _constant(self, node: fx.Node) -> Any:
        value = getattr(self._graph, cast(str, node.target))
        if not isinstance(value, Tensor):
            return value  # the graph of a branch
        # A parameter changes, and what is zero in it with it.
        if value.requires_grad or value.layout is not torch.strided:
            return Value(value)
        self._read.append(value)
        return Value(value, known=value.cpu())

    def _draws(self, node: fx.Node) -> bool:
        tags = getattr(cast(Any, node.target), "tags", ())
        named = str(getattr(cast(Any, node.target), "__name__", ""))
        return torch.Tag.nondeterministic_seeded in tags or named.startswith("empty")

    def _computed(
        self, node: fx.Node, of: Callable[[Value], Tensor | None], args: Any, kwargs: Any
    ) -> Any:
        """The numbers themselves, on the CPU."""
        given = pytree.tree_map(lambda x: of(x) if isinstance(x, Value) else x, (args, kwargs))
        keywords = dict(given[1])
        if "device" in keywords:
            keywords["device"] = torch.device("cpu")
        try:
            result = cast(Any, node.target)(*given[0], **keywords)
        except Exception:  # an operator of another device, say
            return self._of_node(node, None)
        wrap = lambda x: Value(x, known=x) if isinstance(x, Tensor) else x
        return pytree.tree_map(wrap, result)

    def _outputs(self, node: fx.Node) -> list[Tensor]:
        return [x for x in pytree.tree_leaves(node.meta.get("val")) if isinstance(x, Tensor)]

    def _of_node(self, node: fx.Node, patterns: list[Pattern] | None) -> Any:
        left = iter(patterns or [])
        wrap = lambda x: Value(x, next(left, None)) if isinstance(x, Tensor) else x
        return pytree.tree_map(wrap, node.meta.get("val"))
