"""Custom autograd functions inside transforms."""
