"""What plain PyTorch refuses must be refused under transforms, with a message that says why."""
