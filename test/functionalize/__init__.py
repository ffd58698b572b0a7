"""``functionalize``."""
