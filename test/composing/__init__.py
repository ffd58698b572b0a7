"""What works inside a transform: the same code run by functorch_ext, by torch.func and by hand."""
