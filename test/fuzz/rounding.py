"""Random rounding: how many digits of an answer hang on how its parts were rounded.

The last bit of what arithmetic takes and gives is moved up or down at random. Answers of runs that
differ in this alone differ by as much as the rounding of numbers has been magnified on the way: so
it is seen where an exact 0 is computed as 1e-17 and then divided by 1e-12, or compared with 0,
which a small change of the inputs doesn't show.

Source: "Monte Carlo arithmetic" (D. S. Parker, 1997).
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

EXACT = """
    abs ceil clamp clone copysign floor maximum minimum neg relu round sgn sign trunc where amax amin
""".split()

COMPARISONS = """
    eq ne lt le gt ge isnan isinf isfinite signbit argmax argmin any all logical_not logical_and
    logical_or logical_xor
""".split()


class RandomRounding(TorchDispatchMode):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if rounds(op):
            args = tuple(self.moved(x) for x in args[:1]) + args[1:]
        result = op(*args, **(kwargs or {}))
        if not rounds(op):
            return result
        if isinstance(result, tuple):
            return (self.moved(result[0]), *result[1:])
        return self.moved(result)

    def moved(self, x):
        if not isinstance(x, torch.Tensor) or not has_fractions(x):
            return x
        signs = torch.randn(x.shape, generator=self.generator).sign()
        return x * (1 + torch.finfo(x.dtype).eps * signs.to(x.dtype))


def rounds(op: torch._ops.OpOverload) -> bool:
    tagged = torch.Tag.pointwise in op.tags or torch.Tag.reduction in op.tags
    arithmetic = tagged or "norm" in op._opname
    return arithmetic and not op._schema.is_mutable and op._opname not in EXACT + COMPARISONS


def has_fractions(x: torch.Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()
