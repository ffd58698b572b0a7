"""``torch.cond``."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from functorch_ext._control_flow.branch import Branch, outcomes
from functorch_ext._control_flow.outputs import check_same, choose


def cond(
    pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Any
) -> Any:
    """The branch that all samples take; or both, and for each sample the result of its own."""
    if not isinstance(pred, Tensor):
        return (true_fn if pred else false_fn)(*operands)
    taken = outcomes(pred)
    if taken is not None and len(taken) < 2:
        return (false_fn if False in taken else true_fn)(*operands)
    is_taken = None if taken is None else True
    holds = pred.reshape(()).bool()
    results = (
        Branch(holds, is_taken).run(true_fn, operands),
        Branch(holds.logical_not(), is_taken).run(false_fn, operands),
    )
    check_same("torch.cond", *results, ("the output of true_fn", "that of false_fn"))
    return choose(holds, *results)
