"""Batching rules and kernels, operator by operator, against loops."""
