"""How long the transforms take, next to torch.func and to code without transforms."""
