"""Tensors made inside a transform: writes, views, memory that others know."""
