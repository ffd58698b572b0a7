"""More of the table of test_batching_rules: counting, selecting, lists of tensors."""

import torch
import torch.nn.functional as F

from test.rules.batching_cases import (
    Argument,
    bools,
    constant,
    family,
    ints,
    lengths,
    t,
    unit,
    written,
)


def increasing(n):
    return lambda: torch.rand(n, dtype=torch.float64).cumsum(0) - 1.5


def histogramdd(x, weight):
    counts, edges = torch.histogramdd(x, [3, 4], weight=weight)
    return counts, *edges


family(
    "counting",
    {
        "histogram": (lambda x: torch.histogram(x, 5), constant(t(3, 4))),
        "histogram of one number": (lambda x: torch.histogram(x, 3), constant(t())),
        "histogram in a range": (
            lambda x, w: torch.histogram(x, 4, range=(-1.0, 1.0), weight=w, density=True),
            constant(t(7)),
            constant(unit(7)),
        ),
        "histogram of bins": (
            lambda x, bins, w: torch.histogram(x, bins, weight=w),
            constant(t(2, 9)),
            constant(increasing(5)),
            constant(unit(2, 9)),
        ),
        "histogram density": (
            lambda x, bins: torch.histogram(x, bins, density=True),
            constant(unit(20)),
            constant(increasing(6)),
        ),
        "histogramdd": (histogramdd, constant(t(6, 2)), constant(unit(6))),
        "histogramdd of bins": (
            lambda x, a, b: torch.histogramdd(x, [a, b], density=True)[0],
            constant(lambda: 0.2 * t(4, 10, 2)()),
            constant(lambda: torch.linspace(-1, 1, 4, dtype=torch.float64) + 0.1 * t()()),
            constant(lambda: torch.linspace(-1, 1, 3, dtype=torch.float64) + 0.1 * t()()),
        ),
        "bincount": (
            lambda x, w: torch.bincount(x, w, minlength=8),
            ints(8, 12),
            constant(t(12)),
        ),
        "bincount without weights": (lambda x: torch.bincount(x, minlength=5), ints(5, 6)),
        "linspace": (
            lambda a, b: torch.linspace(a, b, 6, dtype=torch.float64),
            *2 * [constant(t())],
        ),
        "linspace of integers": (
            lambda a, b: torch.linspace(a, b, 5, dtype=torch.int64),
            ints(9),
            ints(50),
        ),
        "linspace to a number": (lambda a: torch.linspace(a, 3, 4), constant(t())),
        "linspace from a number": (lambda b: torch.linspace(3, b, 1), constant(t())),
        "logspace": (
            lambda a, b: torch.logspace(a, b, 5, base=2, dtype=torch.float64),
            constant(t()),
            constant(t()),
        ),
    },
)


family(
    "selecting",
    {
        "nonzero_static": (lambda x: torch.nonzero_static(x, size=5), ints(2, 3, 4)),
        "nonzero_static, all": (
            lambda x: torch.nonzero_static(x, size=9, fill_value=7),
            ints(2, 8),
        ),
        "masked_select": (
            lambda x: x.masked_select(torch.tensor([[True, False, True], [False, True, True]])),
            t(2, 3),
        ),
        "masked_select of a row": (
            lambda x: torch.masked_select(x, torch.tensor([[True], [False], [True]])),
            t(4),
        ),
        "combinations": (lambda x: torch.combinations(x, 2), t(4)),
        "repeat_interleave": (
            lambda x, n: x.repeat_interleave(n, 0, output_size=6),
            t(3, 2),
            lengths(6, 3),
        ),
        "repeat_interleave, same sums": (lambda x, n: x.repeat_interleave(n), t(4), lengths(5, 4)),
        "repeat_interleave by a number": (lambda x: x.repeat_interleave(3, 1), t(2, 3)),
        "one_hot": (lambda x: F.one_hot(x, 5), ints(5, 2, 3)),
        "narrow": (lambda x, start: x.narrow(1, start, 3), t(2, 7), ints(4)),
        "narrow from the end": (lambda x, n: x.narrow(0, -3 - n, 2), t(7, 2), ints(3)),
        "tensor_split": (lambda x: torch.tensor_split(x, torch.tensor([1, 4])), t(6, 2)),
        "mask assigned": (
            lambda x, mask, value: torch.where(mask, x, x).index_put((mask,), value),
            t(3, 4),
            bools(3, 4),
            t(),
        ),
        "mask of rows assigned": (
            lambda x, mask, row: x.index_put((mask,), row),
            t(3, 4),
            bools(3),
            t(4),
        ),
        "mask assigned in place": (
            lambda x, mask, value: x.clone().index_put_((mask,), value, accumulate=True),
            written(t(3, 4)),
            bools(3, 4),
            t(),
        ),
        "index_fill": (
            lambda x, i, v: x.index_fill(-1, i, v),
            t(3, 5),
            ints(5, 3),
            t(),
        ),
        "index_fill of a number": (lambda x, i, v: x.index_fill(0, i, v), t(), ints(1, 1), t()),
        "index_fill in place": (
            lambda x, i, v: x.clone().index_fill_(0, i, v),
            written(t(4, 2)),
            ints(4, 3),
            t(),
        ),
        "masked index": (
            lambda x, mask, i: torch.ops.aten._unsafe_masked_index(x, mask, [None, i], 1.5),
            t(2, 5),
            bools(4),
            ints(5, 4),
        ),
        "masked index put": (
            lambda x, mask, i, v: torch.ops.aten._unsafe_masked_index_put_accumulate(
                x, mask, [i], v
            ),
            t(5),
            bools(4),
            ints(5, 4),
            t(4),
        ),
        "narrow_copy": (lambda x: torch.narrow_copy(x, 1, 1, 2), t(2, 4)),
        "as_strided_scatter": (
            lambda src: torch.as_strided_scatter(
                torch.eye(4, dtype=src.dtype)[1:], src, (2, 2), (2, 1), 3
            ),
            t(2, 2),
        ),
    },
)


def adam_step(p, q, g, h):
    """What optimisers do with lists of parameters and gradients."""
    parameters, gradients = [p.clone(), q.clone()], [g, h]
    average = torch._foreach_mul(gradients, 0.1)
    squares = torch._foreach_mul(gradients, gradients)
    denominators = torch._foreach_sqrt(torch._foreach_add(squares, 1e-3))
    torch._foreach_addcdiv_(parameters, average, denominators, value=-0.5)
    torch._foreach_lerp_(parameters, gradients, 0.25)
    return parameters


def in_place(name, *arguments):
    return lambda x, *others: getattr(x.clone(), name)(*others, *arguments)


family(
    "lists",
    {
        "adam": (
            adam_step,
            Argument(t(3, 2), written=True),
            Argument(t(4), written=True),
            t(3, 2),
            t(4),
        ),
        "scalars": (
            lambda a, b: torch._foreach_add(torch._foreach_pow([a, b], 2), [1.0, 2.0]),
            t(3),
            t(2, 2),
        ),
        "norm": (lambda a, b: torch._foreach_norm([a, b]), constant(t(3)), constant(t(2, 2))),
        "chunk_cat": (lambda a, b: torch._chunk_cat([a, b], 0, 2), t(5, 2), t(4)),
        "in place abs": (in_place("abs_"), written(t(3))),
        "in place comparison": (in_place("gt_"), written(constant(t(3)).make), constant(t(3))),
        "in place gelu": (lambda x: torch.ops.aten.gelu_(x.clone()), written(t(3))),
    },
)
