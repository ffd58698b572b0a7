"""Tensors that a traced function closes over, which become inputs of the graph."""

from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode, track_tensor_tree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

_NEW = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default)

_MASKS = (torch.bool, torch.uint8)
_UNKNOWN = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}


class ClosedOver(TorchDispatchMode):
    """Gives operators a tensor without values for each real one that they meet.

    It runs ahead of what records operators, which would take a real tensor for a constant, read
    its value, and write to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []
        self._stand_ins: dict[int, Tensor] = {}  # by the id of the tensor, which is kept
        self._before: list[tuple[bool, Tensor | None]] = []  # requires_grad, and grad

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _NEW:  # of torch.tensor([1.0, 2.0]): a constant indeed
            return func(*args, **(kwargs or {}))
        if _has_unknown_sizes(func, args):
            _allow_unknown_sizes()
        args, kwargs = tree_map_only(Tensor, self._stand_in, (args, kwargs or {}))
        return func(*args, **kwargs)

    def _stand_in(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        if id(tensor) in self._stand_ins:
            return self._stand_ins[id(tensor)]
        mode, recorder = detect_fake_mode(), get_proxy_mode()
        assert mode is not None and recorder is not None
        tracer = recorder.tracer
        with _disable_current_modes():
            plain = tensor.detach()
        stand_in = mode.from_tensor(plain, static_shapes=True)
        name = f"closed_over_{len(self.tensors)}"
        track_tensor_tree(
            stand_in,
            tracer.create_proxy("placeholder", name, (), {}, name=name),
            constant=None,
            tracer=tracer,
        )
        self.tensors.append(tensor)
        self._before.append((tensor.requires_grad, tensor.grad if tensor.is_leaf else None))
        self._stand_ins[id(tensor)] = stand_in
        return stand_in

    def restore(self) -> str | None:
        """Undoes what autograd has done to real tensors; says what that was, if anything."""
        found = None
        for tensor, (required_grad, grad) in zip(self.tensors, self._before):
            if tensor.requires_grad and not required_grad:
                tensor.detach_()
                found = "writes a value that requires grad to a closed-over tensor"
            elif tensor.is_leaf and tensor.grad is not grad:
                tensor.grad = grad
                found = "calls .backward(), which leaves gradients in closed-over tensors"
        return found


def _has_unknown_sizes(func: Any, args: Any) -> bool:
    """Do sizes or numbers that come of it depend on values? Those of a branch may."""
    tags = getattr(func, "tags", None)
    if func is torch.ops.aten.index.Tensor:  # by masks only
        return any(isinstance(x, Tensor) and x.dtype in _MASKS for x in args[1])
    return tags is None or not _UNKNOWN.isdisjoint(tags)


def _allow_unknown_sizes() -> None:
    # Only now: symbols take long to import.
    mode = detect_fake_mode()
    if mode is not None and mode.shape_env is None:
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        mode.shape_env = ShapeEnv()


def move_inputs_to_front(graph: fx.Graph) -> None:
    """Puts the inputs, which were found on the way, ahead of everything else, in order."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    before = graph._root
    for node in inputs:
        before.append(node)
        before = node
