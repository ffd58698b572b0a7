"""Reverse and forward mode, Jacobians, and what PyTorch's formulas lack."""
