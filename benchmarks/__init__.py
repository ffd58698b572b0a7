"""Benchmarks: how fast the transforms are, beside everything else that computes the same.

``make bench`` runs all of it. The parts, each a command of its own::

    python -m benchmarks               times of the workloads, and whether the targets are reached
    python -m benchmarks.instructions  machine instructions for each operator
    python -m benchmarks.scaling       cost against batch, nesting and number of operators
    python -m benchmarks.memory        peak memory
"""
