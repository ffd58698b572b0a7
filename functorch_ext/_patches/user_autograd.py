"""``torch.autograd.grad`` and ``.backward()``, called by the function inside ``vmap``.

A tensor of a vmap can require grad as any other can, and autograd of the vmap's plane gives the
gradients of all samples at once. PyTorch's Python entry to the engine refuses such tensors, so
calls with them go on in C++.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C, _patches
from functorch_ext._custom_functions.own_tensors import is_of_formula
from functorch_ext._pytree import flatten, unflatten
from functorch_ext._warnings import warn_of_loop
from functorch_ext.vmap import vmap


def install() -> None:
    """Teaches PyTorch's calls of its autograd engine about the engine's wrappers."""
    graph = torch.autograd.graph
    plain = graph._engine_run_backward

    def run_backward(
        outputs: Sequence[Any], cotangents: Any, keep_graph: bool, create_graph: bool, inputs: Any,
        allow_unreachable: bool = True, accumulate_grad: bool = False, **others: Any
    ) -> tuple[Any, ...]:  # fmt: skip
        # Plain tensors are PyTorch's affair, unless forward mode is to follow the pass.
        roots, leaves = _without_edges(outputs), _without_edges(inputs)
        followed = roots is outputs and not (accumulate_grad or create_graph)
        followed = followed and _C.is_differentiating()
        if not any(map(_depth, (*roots, *cotangents))) and not followed:
            return plain(
                outputs, cotangents, keep_graph, create_graph, inputs, allow_unreachable,
                accumulate_grad=accumulate_grad, **others,
            )  # fmt: skip
        if roots is not outputs:
            _check_output_edges(roots, leaves)
        if accumulate_grad:
            # PyTorch adds nothing to tensors that are no leaves, if they are given as edges.
            given = zip(inputs, leaves, strict=True)
            leaves = [leaf for each, leaf in given if each is leaf or leaf.is_leaf]
            if inputs and not leaves:
                return ()
            return _accumulate(roots, cotangents, keep_graph, create_graph, leaves)
        return tuple(_grad(roots, cotangents, keep_graph, create_graph, leaves, allow_unreachable))

    for module in (graph, torch.autograd):
        _patches.replace(
            module,
            "_engine_run_backward",
            run_backward,
            "torch.autograd.grad and backward() inside transforms",
        )
    _install_batched_cotangents()


def _without_edges(places: Sequence[Any]) -> Sequence[Tensor]:
    """The places in the graph as tensors: one that stands for each ``GradientEdge``."""
    if all(isinstance(each, Tensor) for each in places):
        return places
    return [
        each if isinstance(each, Tensor) else _C.tensor_of_edge(each.node, each.output_nr)
        for each in places
    ]


def _check_output_edges(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
    """Where outputs are given as edges, what is known about the tensors has to suffice."""
    depth = max(map(_depth, outputs))
    if _C.is_differentiating() or any(_depth(each) < depth for each in (*outputs, *inputs)):
        raise RuntimeError(
            "torch.autograd inside a transform, with a GradientEdge as an output: it tells no "
            "values and no tangents, so neither another derivative nor a gradient by tensors from "
            "outside of the vmap can follow it. Pass the output itself, as a tensor."
        )


def _install_batched_cotangents() -> None:
    """``is_grads_batched=True`` maps over cotangents: with this vmap where one runs already."""
    internals = torch._vmap_internals
    plain = internals._vmap

    def mapped(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
        of_plain = plain(func, *args, **kwargs)

        def call(*tensors: Any) -> Any:
            return of_plain(*tensors) if _C.running_level() is None else _map(func, tensors)

        return call

    for module in (internals, torch.autograd.functional):
        why = "is_grads_batched inside transforms maps with this package's vmap"
        _patches.replace(module, "_vmap", mapped, why)


def _map(func: Callable[..., Any], tensors: tuple[Any, ...]) -> Any:
    """``vmap`` of a function that may return None among its tensors."""
    structures = []

    def without_none(*each: Any) -> list[Tensor]:
        leaves, structure = flatten(func(*each))
        structures.append((structure, [isinstance(leaf, Tensor) for leaf in leaves]))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    found = iter(vmap(without_none)(*tensors))
    structure, is_tensor = structures[0]
    return unflatten(structure, [next(found) if tensor else None for tensor in is_tensor])


def _depth(tensor: Any) -> int:
    """How deep the plane of a tensor is; 0 for a plain one."""
    description = _C.describe(tensor) if isinstance(tensor, Tensor) else None
    return 0 if description is None else description[2]


def _accumulate(
    outputs: Sequence[Tensor], cotangents: Any, keep_graph: bool, create_graph: bool, inputs: Any
) -> tuple[()]:
    """``backward()``: the leaves of the outputs' plane get their ``.grad``."""
    depth = max(map(_depth, outputs))
    _check_outputs("backward()", outputs)
    if depth == 0 or any(_depth(tensor) != depth for tensor in inputs):
        raise RuntimeError(
            "backward() inside vmap would add to the .grad of a tensor from outside of the vmap. "
            "All samples share it, and each has a gradient of its own. Use functorch_ext.grad, or "
            "call backward() on the result of the vmap for the sum over samples."
        )
    _C.run_backward(outputs, cotangents, list(inputs), keep_graph, create_graph, True, True)
    return ()


def _grad(
    outputs: Sequence[Tensor], cotangents: Any, keep_graph: bool, create_graph: bool, inputs: Any,
    allow_unused: bool
) -> list[Any]:  # fmt: skip
    """``torch.autograd.grad``: by inputs of the outputs' plane, and by those of planes below."""
    depth = max(map(_depth, outputs))
    ways: dict[Callable[..., list[Any]], list[int]] = {}
    for i, tensor in enumerate(inputs):
        if _depth(tensor) < depth:
            way = _grad_below
        elif _C.requires_grad_here(tensor) or not tensor.requires_grad:
            way = _grad_here
        else:
            way = _grad_of_values
        ways.setdefault(way, []).append(i)
    gradients: list[Any] = [None] * len(inputs)
    for way, positions in ways.items():
        given = [inputs[i] for i in positions]
        keep = keep_graph or len(ways) > 1
        found = way(outputs, cotangents, keep, create_graph, given, allow_unused)
        for i, gradient in zip(positions, found, strict=True):
            gradients[i] = gradient
    return gradients


def _grad_here(
    outputs: Sequence[Tensor], cotangents: Any, keep_graph: bool, create_graph: bool,
    inputs: list[Tensor], allow_unused: bool
) -> list[Any]:  # fmt: skip
    """Gradients by tensors that require grad on the outputs' plane."""
    # An output that depends on tensors from outside alone has no gradient by these.
    if allow_unused or any(map(_C.requires_grad_here, outputs)):
        pairs = zip(outputs, cotangents, strict=True)
        known = [p for p in pairs if _C.requires_grad_here(p[0]) or not p[0].requires_grad]
        if not known:
            return [None] * len(inputs)
        outputs, cotangents = (list(column) for column in zip(*known, strict=True))
    _check_outputs("torch.autograd.grad", outputs)
    # Without create_graph it is a constant to reverse mode, on the planes below as well.
    return _C.run_backward(
        outputs, cotangents, inputs, keep_graph, create_graph, allow_unused, False
    )


def _grad_of_values(
    outputs: Sequence[Tensor], cotangents: Any, keep_graph: bool, create_graph: bool,
    inputs: list[Tensor], allow_unused: bool
) -> list[Any]:  # fmt: skip
    """Gradients by tensors of the outputs' plane that planes below differentiate by.

    In the formulas of a custom function, which gets such tensors; by what all samples share, such
    as a custom function returns of it, anywhere.
    """
    level = _C.level_of_tensors(tuple(inputs))
    batched = [i for i, tensor in enumerate(inputs) if level and level.is_batched(tensor)]
    if level is None or (batched and not is_of_formula(level)):
        raise RuntimeError(
            "torch.autograd.grad inside vmap, by a tensor that requires grad outside of the vmap "
            "only. Call x.requires_grad_() before you use x, or use functorch_ext.grad."
        )
    gradients: list[Any] = [None] * len(inputs)
    shared = [i for i in range(len(inputs)) if i not in batched]
    if batched:
        values, seeds, dims = [], [], [level.unwrap(inputs[i])[1] for i in batched]
        for output, cotangent in zip(outputs, cotangents, strict=True):
            value, dim = level.unwrap(output)
            if dim is None:
                continue  # what all samples share doesn't depend on what differs between them
            values.append(value)
            seeds.append(None if cotangent is None else _below(level, cotangent, dim))
        given = [level.unwrap(inputs[i])[0] for i in batched]
        keep = keep_graph or bool(shared)
        found = _C.run_below(
            level, _grad_of_plane, values, seeds, keep, create_graph, given, allow_unused
        )
        for i, gradient, dim in zip(batched, found, dims, strict=True):
            gradients[i] = gradient if gradient is None else _above(level, gradient, dim)
    if shared:
        given = [level.unwrap(inputs[i])[0] for i in shared]
        found = _grad_below(outputs, cotangents, keep_graph, create_graph, given, allow_unused)
        for i, gradient in zip(shared, found, strict=True):
            gradients[i] = gradient
    return gradients


def _below(level: _C.Level, tensor: Tensor, dim: int) -> Tensor:
    """The value of a tensor below a level, also where rows of a Jacobian, above it, are tensors."""
    rows = _C.level_of_tensors((tensor,))
    if rows is None or rows.depth <= level.depth:
        return level.stacked(tensor, dim)
    value, row_dim = rows.unwrap(tensor)
    if row_dim is None:
        return _below(level, value, dim)
    return rows.wrap(_below(level, value.movedim(row_dim, 0), dim + 1), 0)


def _above(level: _C.Level, value: Tensor, dim: int | None) -> Tensor:
    """The tensor of a level that has this value; the reverse of :func:`_below`."""
    assert dim is not None
    rows = _C.level_of_tensors((value,))
    if rows is None or rows.depth < level.depth:
        return level.wrap(value, dim)
    each, row_dim = rows.unwrap(value)
    if row_dim is None:
        return _above(level, each, dim)
    return rows.wrap(_above(level, each.movedim(row_dim, 0), dim + 1), 0)


def _grad_of_plane(
    outputs: list[Tensor], cotangents: list[Any], keep_graph: bool, create_graph: bool,
    inputs: list[Tensor], allow_unused: bool
) -> list[Any]:  # fmt: skip
    """The same as :func:`_grad`, of outputs some of which may not depend on anything."""
    pairs = zip(outputs, cotangents, strict=True)
    known = [pair for pair in pairs if pair[0].requires_grad]
    if not known:
        if not allow_unused:
            _raise_unused()
        return [None] * len(inputs)
    outputs, cotangents = (list(column) for column in zip(*known, strict=True))
    return _grad(outputs, cotangents, keep_graph, create_graph, inputs, allow_unused)


def _grad_below(
    outputs: Sequence[Tensor], cotangents: Any, keep_graph: bool, create_graph: bool,
    inputs: list[Tensor], allow_unused: bool
) -> list[Any]:  # fmt: skip
    """Gradients by tensors from outside of the vmap, which all samples share: one per sample.

    Autograd of the plane below would sum them up. So it runs on a basis there: for each sample, the
    cotangents of that one alone. Inside several vmaps a sample is one of all of them.
    """
    gradients: list[Any] = [None] * len(inputs)
    depths = sorted({_depth(tensor) for tensor in inputs}, reverse=True)
    for depth in depths:
        at_depth = [i for i, tensor in enumerate(inputs) if _depth(tensor) == depth]
        found = _grad_on_plane(
            outputs, cotangents, keep_graph or depth != depths[-1], create_graph,
            [inputs[i] for i in at_depth], allow_unused,
        )  # fmt: skip
        for i, gradient in zip(at_depth, found, strict=True):
            gradients[i] = gradient
    return gradients


def _grad_on_plane(
    outputs: Sequence[Tensor], cotangents: Any, keep_graph: bool, create_graph: bool,
    inputs: list[Tensor], allow_unused: bool
) -> list[Any]:  # fmt: skip
    """The same, by inputs that are all of one plane."""
    depth = _depth(inputs[0])
    values, seeds = list(outputs), list(cotangents)
    levels, is_batched = [], False
    while (level := _C.level_of_tensors((*values, *seeds))) and level.depth > depth:
        if not level.has_samples:
            raise RuntimeError(
                "torch.autograd.grad inside jvp or functionalize, by a tensor from outside of it. "
                "Use functorch_ext.grad."
            )
        if create_graph and any(map(_C.requires_grad_here, values)):
            raise RuntimeError(
                "torch.autograd.grad(..., create_graph=True) inside vmap, by a tensor from outside "
                "of the vmap: its gradient can't be differentiated further by tensors of the vmap. "
                "Use functorch_ext.grad, which takes such a tensor for each sample."
            )
        levels.append(level)
        is_batched = is_batched or any(map(level.is_batched, values))
        values = [level.unwrap(value)[0] for value in values]
        seeds = [seed if seed is None else level.unwrap(seed)[0] for seed in seeds]
    if not is_batched:
        # The same for all samples: one pass will do, in which the cotangents alone differ.
        return _grad(values, cotangents, keep_graph, create_graph, inputs, allow_unused)
    counts = [level.batch_size for level in reversed(levels)]
    count = math.prod(counts)
    warn_of_loop(
        f"torch.autograd.grad inside functorch_ext.vmap, by a tensor from outside of the vmap: "
        f"{count} backward passes, one per sample, at once (a performance drop). Use "
        "functorch_ext.grad, which takes such a tensor for each sample."
    )

    def on_basis() -> list[Any]:
        roots, seeds = [], []
        for output, cotangent in zip(outputs, cotangents, strict=True):
            value = _in_front(levels, output)
            if not value.requires_grad:
                continue
            seed = torch.ones_like(value) if cotangent is None else _in_front(levels, cotangent)
            roots.append(value)
            each = seed.flatten(0, len(levels) - 1)
            basis = torch.diag_embed(each.movedim(0, -1), dim1=0, dim2=1)
            seeds.append(basis.unflatten(1, counts))
        if not roots:
            _check_unused(outputs, allow_unused)
            return [None] * len(inputs)

        def pull_back(basis_level: _C.Level) -> list[Any]:
            basis = [basis_level.wrap(seed, 0) for seed in seeds]
            found = _grad(roots, basis, keep_graph, create_graph, inputs, allow_unused)
            return [None if each is None else basis_level.stacked(each, 0) for each in found]

        return _C.run_basis(pull_back, count, roots)

    found = _C.run_below(levels[-1], on_basis)
    return [
        None if gradient is None else _for_each(levels, gradient.unflatten(0, counts))
        for gradient in found
    ]


def _in_front(levels: list[_C.Level], tensor: Tensor) -> Tensor:
    """The value of a tensor below all the levels, deepest first, with their samples in front."""
    for level in levels:
        value, dim = level.unwrap(tensor)
        if dim is None:
            tensor = value.expand(level.batch_size, *value.shape)
        else:
            tensor = value.movedim(dim, 0)
    return tensor


def _for_each(levels: list[_C.Level], gradient: Tensor) -> Tensor:
    """What has all levels' samples in front, as a tensor of the deepest of them."""
    for level in reversed(levels):
        gradient = level.wrap(gradient, 0)
    return gradient


def _check_outputs(call: str, outputs: Sequence[Tensor]) -> None:
    for position, output in enumerate(outputs):
        if not _C.requires_grad_here(output):
            _raise_without_grad(call, position, output)


def _check_unused(outputs: Sequence[Tensor], allow_unused: bool) -> None:
    """Raises for outputs that don't depend on what requires grad on the inputs' plane."""
    if not any(output.requires_grad for output in outputs):
        _raise_without_grad("torch.autograd.grad", 0, outputs[0])
    if not allow_unused:
        _raise_unused()


def _raise_unused() -> None:
    raise RuntimeError(
        "torch.autograd.grad inside vmap: the outputs don't depend on one of the inputs, a "
        "tensor from outside of the vmap. Pass allow_unused=True if that is meant: its "
        "gradient is None."
    )


def _raise_without_grad(call: str, position: int, output: Tensor) -> None:
    """An output that nothing differentiates by on its own plane."""
    description = _C.describe(output)
    while description is not None:
        if _C.requires_grad_here(description[0]):
            raise RuntimeError(
                f"{call} inside vmap: output {position} depends on nothing of this vmap that "
                "requires grad, only on tensors from outside of it, which all samples share. Use "
                "functorch_ext.grad by them, which gives a gradient for each sample; or call "
                f"{call} outside, on the result of the vmap, for the sum over samples."
            )
        description = _C.describe(description[0])
    raise RuntimeError(
        f"{call} inside vmap: output {position} doesn't require grad: it depends on nothing that "
        "does. Inside vmap the function's arguments don't require grad by themselves. Call "
        "x.requires_grad_() before you use x, or use functorch_ext.grad."
    )
