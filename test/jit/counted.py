"""Functions that count how often Python runs them: how often they are traced."""

from functorch_ext import jit


class Counted:
    """A function that counts how often Python runs it."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.function(*args, **kwargs)


def counted(function, **options):
    """The function, which counts, and the same jitted."""
    function = Counted(function)
    return function, jit(function, backend="graph", **options)
