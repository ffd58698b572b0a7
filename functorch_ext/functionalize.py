"""``functionalize``."""


def functionalize(func, *, remove="mutations"):
    raise NotImplementedError
