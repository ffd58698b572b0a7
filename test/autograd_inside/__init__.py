"""PyTorch's own autograd inside transforms: calls of it, hooks, checkpoints."""
