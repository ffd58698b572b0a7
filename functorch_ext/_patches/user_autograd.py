"""``torch.autograd.grad`` and ``.backward()``, called by the function inside ``vmap``.

A tensor of a vmap can require grad as any other can, and autograd of the vmap's plane gives the
gradients of all samples at once. PyTorch's Python entry to the engine refuses such tensors, so
calls with them go on in C++.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from functorch_ext import _C, _patches
from functorch_ext._patches.user_gradients import accumulate, depth_of, gradients_by
from functorch_ext._pytree import flatten, unflatten
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
        if not any(map(depth_of, (*roots, *cotangents))) and not followed:
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
            return accumulate(roots, cotangents, keep_graph, create_graph, leaves)
        return tuple(
            gradients_by(roots, cotangents, keep_graph, create_graph, leaves, allow_unreachable)
        )

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
    depth = max(map(depth_of, outputs))
    if _C.is_differentiating() or any(depth_of(each) < depth for each in (*outputs, *inputs)):
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
