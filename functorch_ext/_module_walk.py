"""The modules and the parameters of a model, as its own methods give them, in less time."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

# Modules with what the names of their parameters begin with.
Walk = list[tuple[str, nn.Module]]
# Of parameters: what the gradient of each goes through.
Hooks = list[tuple[str, Callable[[Tensor], Any]]]


def walk(model: nn.Module) -> Walk:
    """Each module once, as ``model.named_modules()`` finds them."""
    seen: set[nn.Module] = set()
    found: Walk = []
    pending: list[tuple[str, nn.Module | None]] = [("", model)]
    while pending:
        prefix, module = pending.pop()
        if module is None or module in seen:
            continue
        if type(module).named_modules is not nn.Module.named_modules:  # it has a way of its own
            return [(f"{name}." if name else "", each) for name, each in model.named_modules()]
        seen.add(module)
        found.append((prefix, module))
        children = module._modules
        if children:
            named = [(f"{prefix}{name}.", each) for name, each in children.items()]
            pending.extend(reversed(named))
    return found


def _named_parameters(model: nn.Module, found: Walk) -> Iterable[tuple[str, nn.Parameter]]:
    """As ``model.named_parameters()``."""
    if type(model).named_parameters is not nn.Module.named_parameters:
        return model.named_parameters()
    known: set[int] = set()
    pairs: list[tuple[str, nn.Parameter]] = []
    for prefix, module in found:
        for name, each in module._parameters.items():
            if each is not None and id(each) not in known:
                known.add(id(each))
                pairs.append((prefix + name, each))
    return pairs


def split_parameters(
    model: nn.Module, found: Walk
) -> tuple[dict[str, Tensor], dict[str, Tensor], Hooks]:
    """What is differentiated by, what isn't, and hooks; without links to the model's parameters."""
    trained: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    hooks: Hooks = []
    for name, each in _named_parameters(model, found):
        # One that isn't a Parameter belongs to functional_call, inside another transform.
        is_parameter = isinstance(each, nn.Parameter)
        plain = each.detach() if is_parameter else each
        (trained if each.requires_grad else rest)[name] = plain
        if is_parameter and each.requires_grad and each._backward_hooks:
            hooks += [(name, hook) for hook in each._backward_hooks.values()]
    return trained, rest, hooks
