"""``torch.while_loop``."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from functorch_ext._control_flow.branch import Branch, outcomes
from functorch_ext._control_flow.outputs import check_same, choose


def while_loop(
    cond_fn: Callable[..., Any],
    body_fn: Callable[..., Any],
    carried_inputs: Sequence[Any],
    additional_inputs: Sequence[Any],
    mutated_arg_indices: str = "",
) -> Any:
    """Runs while any sample does. A sample that has finished keeps what it carries."""
    carry: Any = tuple(x.clone() if isinstance(x, Tensor) else x for x in carried_inputs)
    result: Any = carry  # in the structure that the body returns
    unfinished: Tensor | None = None  # once some samples have finished
    while True:
        arguments = (*carry, *additional_inputs)
        running = _checked(cond_fn(*arguments))
        if unfinished is not None and running is not False:
            running = unfinished if running is True else running.logical_and(unfinished)
        found = _known_outcomes(running)
        if True not in found:
            return result
        if False in found:
            unfinished = running
            returned = Branch(running, is_taken=True).run(body_fn, arguments)
        else:
            returned = body_fn(*arguments)
        leaves = tuple(pytree.tree_leaves(returned))
        check_same("torch.while_loop", leaves, carry, ("body_fn_output", "carried_inputs"))
        carry = choose(running, leaves, carry) if False in found else leaves
        result = pytree.tree_unflatten(carry, pytree.tree_structure(returned))


def _checked(running: Any) -> Any:
    if isinstance(running, bool):
        return running
    if isinstance(running, Tensor) and not running.dim() and running.dtype == torch.bool:
        return running
    raise RuntimeError(
        "torch.while_loop: cond_fn must return a boolean scalar tensor or a boolean but got "
        f"{running}."
    )


def _known_outcomes(running: Any) -> set[bool]:
    found = outcomes(running) if isinstance(running, Tensor) else {running}
    if found is None:
        raise RuntimeError(
            "functorch_ext: torch.while_loop inside a transform or jit can't be traced: how often "
            "it runs depends on values, which a trace doesn't have. Use "
            "torch._higher_order_ops.scan with a fixed number of steps, or trace without the "
            "transform."
        )
    return found
