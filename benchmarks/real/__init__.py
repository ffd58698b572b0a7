"""Networks of real size in their users' roles: where kernels count, not what a transform costs.

``python -m benchmarks.real`` times them. The workloads beside (:mod:`benchmarks.workloads`) are
small on purpose and show the other side.
"""
