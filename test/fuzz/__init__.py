"""Random programs, each compared with Python loops over plain torch. See `__main__`."""
