"""The gradients that a function inside ``vmap`` asks PyTorch for, by whose tensors they are.

By tensors of the outputs' own plane autograd of that plane gives them. Tensors from outside of the
vmap are shared by all samples, and each sample has a gradient of its own by them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._custom_functions.own_tensors import is_of_formula
from functorch_ext._warnings import warn_of_loop


def depth_of(tensor: Any) -> int:
    """How deep the plane of a tensor is; 0 for a plain one."""
    description = _C.describe(tensor) if isinstance(tensor, Tensor) else None
    return 0 if description is None else description[2]


def accumulate(
    outputs: Sequence[Tensor], cotangents: Any, keep_graph: bool, create_graph: bool, inputs: Any
) -> tuple[()]:
    """``backward()``: the leaves of the outputs' plane get their ``.grad``."""
    depth = max(map(depth_of, outputs))
    _check_outputs("backward()", outputs)
    if depth == 0 or any(depth_of(tensor) != depth for tensor in inputs):
        raise RuntimeError(
            "backward() inside vmap would add to the .grad of a tensor from outside of the vmap. "
            "All samples share it, and each has a gradient of its own. Use functorch_ext.grad, or "
            "call backward() on the result of the vmap for the sum over samples."
        )
    _C.run_backward(outputs, cotangents, list(inputs), keep_graph, create_graph, True, True)
    return ()


def gradients_by(
    outputs: Sequence[Tensor], cotangents: Any, keep_graph: bool, create_graph: bool, inputs: Any,
    allow_unused: bool
) -> list[Any]:  # fmt: skip
    """``torch.autograd.grad``: by inputs of the outputs' plane, and by those of planes below."""
    depth = max(map(depth_of, outputs))
    ways: dict[Callable[..., list[Any]], list[int]] = {}
    for i, tensor in enumerate(inputs):
        if depth_of(tensor) < depth:
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
    """The same as :func:`gradients_by`, of outputs some of which may not depend on anything."""
    pairs = zip(outputs, cotangents, strict=True)
    known = [pair for pair in pairs if pair[0].requires_grad]
    if not known:
        if not allow_unused:
            _raise_unused()
        return [None] * len(inputs)
    outputs, cotangents = (list(column) for column in zip(*known, strict=True))
    return gradients_by(outputs, cotangents, keep_graph, create_graph, inputs, allow_unused)


def _grad_below(
    outputs: Sequence[Tensor], cotangents: Any, keep_graph: bool, create_graph: bool,
    inputs: list[Tensor], allow_unused: bool
) -> list[Any]:  # fmt: skip
    """Gradients by tensors from outside of the vmap, which all samples share: one per sample.

    Autograd of the plane below would sum them up. So it runs on a basis there: for each sample, the
    cotangents of that one alone. Inside several vmaps a sample is one of all of them.
    """
    gradients: list[Any] = [None] * len(inputs)
    depths = sorted({depth_of(tensor) for tensor in inputs}, reverse=True)
    for depth in depths:
        at_depth = [i for i, tensor in enumerate(inputs) if depth_of(tensor) == depth]
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
    depth = depth_of(inputs[0])
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
        return gradients_by(values, cotangents, keep_graph, create_graph, inputs, allow_unused)
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
            found = gradients_by(roots, basis, keep_graph, create_graph, inputs, allow_unused)
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
