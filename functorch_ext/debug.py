"""Tools to find out what goes wrong inside transforms: ``functorch_ext.debug``."""

from functorch_ext._inspect.leaks import leaks
from functorch_ext._inspect.nans import nans
from functorch_ext._inspect.show import show

__all__ = ["leaks", "nans", "show"]
