"""Modules: ``functional_call``, ensembles, hooks."""
