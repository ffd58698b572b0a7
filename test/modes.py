"""Modes that look at what runs."""

from torch.utils._python_dispatch import TorchDispatchMode


class Seen(TorchDispatchMode):
    """The names of PyTorch's operators that run, in order."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "aten":  # fake tensors are asked for their device
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))
