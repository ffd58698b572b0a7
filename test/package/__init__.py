"""The package itself: signatures, types, documentation, patches of PyTorch."""
