"""All workloads, by theme.

The sizes are small on purpose: there the time is what a transform costs on top of the arithmetic.
On large tensors arithmetic dominates, and all ways but the loops over samples come out alike.
"""

from benchmarks.workload import Workload
from benchmarks.workloads import (
    ensembles,
    jacobians,
    linalg,
    meta_learning,
    per_sample,
    physics,
    pointwise,
)

WORKLOADS: list[Workload] = [
    *pointwise.WORKLOADS,
    *jacobians.WORKLOADS,
    *per_sample.WORKLOADS,
    *physics.WORKLOADS,
    *ensembles.WORKLOADS,
    *meta_learning.WORKLOADS,
    *linalg.WORKLOADS,
]
