"""Which elements of an operator's operands its results depend on.

A rule holds for all values of its operands but those that are known. An operator without a rule
mixes everything: each element of its results depends on all elements of its operands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from functorch_ext._sparsity.pattern import Edges, Pattern, mixed, through


@dataclass
class Value:
    """A tensor of the graph: its shape, what it depends on, and its numbers if they are known."""

    like: Tensor  # without values
    pattern: Pattern | None = None
    known: Tensor | None = None

    def to(self, results: Tensor, sources: Tensor) -> Edges:
        """Edges from its elements to those of a result."""
        assert self.pattern is not None
        return Edges(self.pattern, results, sources)


@dataclass
class Call:
    """A call of an operator: its arguments by name, with values in place of tensors."""

    operator: Any
    arguments: dict[str, Any]
    outputs: list[Tensor]

    def dependent(self) -> list[Value]:
        """The operands that depend on inputs."""
        return [value for value in values_in(self.arguments) if value.pattern is not None]


Rule = Callable[[Call], "list[Pattern] | None"]  # None: it isn't one of the rule's cases


def values_in(tree: Any) -> list[Value]:
    """The values in a container."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Value)]


def patterns_of(call: Call) -> list[Pattern]:
    """The patterns of a call's results."""
    operator = call.operator
    name = operator._schema.name.removeprefix("aten::") if hasattr(operator, "_schema") else None
    rules = [_RULES[name]] if name in _RULES else []
    if torch.Tag.pointwise in getattr(operator, "tags", ()):
        rules.append(_pointwise)
    for rule in rules:
        patterns = rule(call)
        if patterns is not None:
            return patterns
    return mixed_all(call)


def mixed_all(call: Call) -> list[Pattern]:
    """Everything depends on everything."""
    operands = [x.pattern for x in call.dependent() if x.pattern is not None]
    return [mixed(operands, output.numel()) for output in call.outputs]


def numbers(like: Tensor) -> Tensor:
    """The numbers of a tensor's elements, in its shape."""
    return torch.arange(like.numel()).view(like.shape)


def _pointwise(call: Call) -> list[Pattern] | None:
    if len(call.outputs) != 1:
        return None
    (output,) = call.outputs
    places = torch.arange(output.numel())
    dependent = call.dependent()
    edges = []
    for value in dependent:
        sources = numbers(value.like).expand(output.shape).flatten()
        edges.append(value.to(places, sources))
    factor = call.arguments.get("other")
    if call.operator is torch.ops.aten.mul.Tensor and len(dependent) == 1:
        factor = factor if factor is not dependent[0] else call.arguments["self"]
        if isinstance(factor, Value) and factor.known is not None:
            kept = (factor.known != 0).expand(output.shape).flatten()
            edges = [Edges(edges[0].operand, places[kept], edges[0].sources[kept])]
    return [through(edges, output.numel())]


# Arguments that say where elements come from, or go to; and numbers that are put among them.
_PLACES = ("index", "indices", "condition", "mask", "repeats")
_FILLED = ("value", "self", "other")


def _moves(call: Call) -> list[Pattern] | None:
    """The operator itself moves numbers: here, those of the elements, counted from 1."""
    places = [each for name in _PLACES for each in values_in(call.arguments.get(name))]
    if any(each.known is None for each in places) or "dtype" in call.arguments:
        return None
    first = 1
    blocks = []

    def stand_in(value: Value) -> Tensor:
        nonlocal first
        if value.pattern is None:
            return torch.zeros(value.like.shape, dtype=torch.float64)
        blocks.append((first, value.pattern))
        ids = (numbers(value.like) + first).to(torch.float64)
        first += value.like.numel()
        return ids

    given = {}
    for name, argument in call.arguments.items():
        if name in _PLACES:
            given[name] = _replaced(argument, lambda value: value.known)
        elif name in _FILLED and not isinstance(argument, Value):
            given[name] = 0.0
        else:
            given[name] = _replaced(argument, stand_in)
    moved = pytree.tree_leaves(call.operator(**given))
    return [_from_ids(each.flatten().long(), blocks) for each in moved]


def _from_ids(ids: Tensor, blocks: list[tuple[int, Pattern]]) -> Pattern:
    edges = []
    for first, pattern in blocks:
        (results,) = ((ids >= first) & (ids < first + pattern.elements)).nonzero(as_tuple=True)
        edges.append(Edges(pattern, results, ids[results] - first))
    return through(edges, ids.numel())


def _replaced(argument: Any, replace: Callable[[Value], Any]) -> Any:
    return pytree.tree_map(lambda x: replace(x) if isinstance(x, Value) else x, argument)


def _same(call: Call) -> list[Pattern] | None:
    return [call.arguments["self"].pattern]


def along(value: Value, dims: Sequence[int]) -> tuple[Pattern, Tensor]:
    """The lines along dimensions: the pattern of each, and the line of each element."""
    shape = value.like.shape
    dims = [dim % max(len(shape), 1) for dim in dims]
    kept = [1 if i in dims else size for i, size in enumerate(shape)]
    count = torch.Size(kept).numel()
    lines = torch.arange(count).view(kept).expand(shape).flatten()
    edges = value.to(lines, torch.arange(lines.numel()))
    return through([edges], count), lines


def _dims(call: Call) -> list[int]:
    dims = call.arguments.get("dim")
    if isinstance(dims, int):
        return [dims]
    return list(dims or range(call.arguments["self"].like.dim()))


def _reduces(call: Call) -> list[Pattern] | None:
    operands = call.dependent()
    if len(operands) != 1 or operands[0] is not call.arguments.get("self"):
        return None
    pattern, _ = along(operands[0], _dims(call))
    return [pattern for _ in call.outputs]


def _mixes_lines(call: Call) -> list[Pattern] | None:
    operands, (output,) = call.dependent(), call.outputs
    dim = call.arguments.get("dim")
    if not isinstance(dim, int) or any(each.like.shape != output.shape for each in operands):
        return None
    places = torch.arange(output.numel())
    found = [along(each, [dim]) for each in operands]
    return [through([Edges(of_lines, places, lines) for of_lines, lines in found], len(places))]


_SOURCES = ("values", "src", "source")


def _adds_at(call: Call) -> list[Pattern] | None:
    """Results are ``self``, with elements of another operand added or put at known places."""
    arguments = call.arguments
    target, name = arguments["self"], call.operator._schema.name.removeprefix("aten::")
    source = next((arguments[each] for each in _SOURCES if each in arguments), None)
    index = arguments.get("index", arguments.get("indices"))
    if not isinstance(source, Value) or any(each.known is None for each in values_in(index)):
        return None
    index = _replaced(index, lambda each: each.known)
    places = numbers(target.like)
    sources = numbers(source.like)
    if "index_put" in name:
        reached = torch.ops.aten.index.Tensor(places, index)
        sources = sources.expand(reached.shape)
    elif name == "index_add":
        reached = places.index_select(arguments["dim"], index)
    else:
        reached = places.gather(arguments["dim"], index)
        sources = sources[tuple(slice(size) for size in index.shape)]
    edges = []
    if target.pattern is not None:
        edges.append(Edges(target.pattern, places.flatten(), places.flatten()))
    if source.pattern is not None:
        edges.append(Edges(source.pattern, reached.flatten(), sources.flatten()))
    return [through(edges, target.like.numel())]


_RULES: dict[str, Rule] = {}


def register(rule: Rule, names: str) -> None:
    """Makes it the rule of operators, whatever their overloads."""
    _RULES.update(dict.fromkeys(names.split(), rule))


register(
    _moves,
    "view reshape _unsafe_view _reshape_alias permute transpose t expand squeeze unsqueeze "
    "slice select narrow split split_with_sizes unbind unfold diagonal flip roll rot90 cat stack "
    "repeat index index_select gather take where masked_fill tril triu diag_embed "
    "constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d "
    "slice_scatter select_scatter diagonal_scatter slice_backward select_backward "
    "diagonal_backward pixel_shuffle pixel_unshuffle channel_shuffle view_copy expand_copy "
    "permute_copy slice_copy select_copy unsqueeze_copy squeeze_copy t_copy transpose_copy",
)
register(_pointwise, "copy")
register(_same, "alias detach clone _to_copy contiguous lift_fresh_copy")
register(_reduces, "sum mean amax amin nansum")
register(
    _mixes_lines,
    "cumsum cumprod logcumsumexp _softmax _log_softmax _softmax_backward_data "
    "_log_softmax_backward_data",
)
register(_adds_at, "index_put _unsafe_index_put scatter_add index_add scatter")
