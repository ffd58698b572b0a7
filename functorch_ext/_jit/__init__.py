"""``jit``: a function as a compiled graph of PyTorch's operators, traced once per signature."""
