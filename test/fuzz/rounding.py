"""Random rounding: how many digits of an answer hang on how its parts were rounded.

The last bit of what arithmetic gives is moved up or down at random. Answers of runs that differ in
this alone differ by as much as the rounding of numbers has been magnified on the way: so it is
seen where an exact 0 is computed as 1e-17 and then divided by 1e-12, which a small change of the
inputs doesn't show.

Source: "Monte Carlo arithmetic" (D. S. Parker, 1997).
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

EXACT = """
    abs ceil clamp clone copysign floor maximum minimum neg relu round sgn sign trunc where amax amin
""".split()


class RandomRounding(TorchDispatchMode):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        if not isinstance(result, torch.Tensor) or not rounds(op) or not has_fractions(result):
            return result
        signs = torch.randn(result.shape, generator=self.generator).sign()
        return result * (1 + torch.finfo(result.dtype).eps * signs.to(result.dtype))


def rounds(op: torch._ops.OpOverload) -> bool:
    arithmetic = torch.Tag.pointwise in op.tags or torch.Tag.reduction in op.tags
    return arithmetic and not op._schema.is_mutable and op._opname not in EXACT


def has_fractions(x: torch.Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()
