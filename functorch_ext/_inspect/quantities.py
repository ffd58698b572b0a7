"""Times and sizes for people."""


def time(seconds: float) -> str:
    """``1.2 ms``"""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def size(count: int | None) -> str:
    """``1.2 MiB``; nothing where it isn't known."""
    if count is None:
        return ""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} GiB"


def several(count: int, noun: str) -> str:
    """``1 call``, ``2 calls``"""
    return f"{count} {noun}{'' if count == 1 else 's'}"
