"""PyTorch's own table of operators, run under every transform."""
