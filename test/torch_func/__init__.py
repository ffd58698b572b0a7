"""Beside torch.func's transforms."""
