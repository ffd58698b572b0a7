"""More of the table of test_batching_rules: counting, selecting, sequences, lists of tensors."""

import torch
import torch.nn.functional as F

from test.batching_cases import Argument, bools, constant, family, ints, t, unit, written


def lengths(total, parts):
    """`parts` lengths that add up to `total`."""

    def make():
        cuts = torch.randint(total + 1, (parts - 1,)).sort().values
        edges = torch.cat([torch.zeros(1, dtype=torch.int64), cuts, torch.tensor([total])])
        return edges.diff()

    return make


def starts(total, parts):
    """Where `parts` bags start among `total` places: the first at 0."""

    def make():
        return torch.cat(
            [torch.zeros(1, dtype=torch.int64), lengths(total, parts)().cumsum(0)[:-1]]
        )

    return make


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

family(
    "sequences",
    {
        "segment_reduce": (
            lambda x, n: torch.segment_reduce(x, "sum", lengths=n, unsafe=False),
            t(6, 2),
            lengths(6, 3),
        ),
        "segment_reduce in rows": (
            lambda x, n: torch.segment_reduce(x, "mean", lengths=n, axis=1, initial=1.0),
            t(2, 5, 3),
            lambda: torch.stack([lengths(5, 2)(), lengths(5, 2)()]),
        ),
        "segment_reduce to the maximum": (
            lambda x, n: torch.segment_reduce(x, "max", lengths=n),
            t(6),
            lengths(6, 3),
        ),
        "ctc_loss": (
            lambda x, target: F.ctc_loss(x.log_softmax(-1), target, (7, 5), (3, 2)),
            t(7, 2, 5),
            lambda: 1 + ints(4, 2, 3)(),
        ),
        "ctc_loss, targets in a row": (
            lambda x, target: F.ctc_loss(
                x.log_softmax(-1), target, (7, 6), (3, 2), reduction="none"
            ),
            t(7, 2, 5),
            lambda: 1 + ints(4, 5)(),
        ),
        "ctc_loss, lengths in tensors": (
            lambda x, target, a, b: F.ctc_loss(x.log_softmax(-1), target, a, b, zero_infinity=True),
            t(7, 2, 5),
            lambda: 1 + ints(4, 2, 3)(),
            lambda: 5 + ints(3, 2)(),
            lambda: 1 + ints(3, 2)(),
        ),
        "ctc_loss of one": (
            lambda x, target: F.ctc_loss(x.log_softmax(-1), target, (6,), (3,)),
            t(6, 4),
            lambda: 1 + ints(3, 3)(),
        ),
        "pack": (
            lambda x: torch._VF._pack_padded_sequence(x, torch.tensor([4, 2, 1]), False)[0],
            t(4, 3, 2),
        ),
        "pack and pad": (
            lambda x: torch.nn.utils.rnn.pad_packed_sequence(
                torch.nn.utils.rnn.pack_padded_sequence(
                    x, [2, 4], batch_first=True, enforce_sorted=False
                )
            )[0],
            t(2, 4, 3),
        ),
    },
)


def bag(mode, **settings):
    return lambda i, w, offsets: F.embedding_bag(i, w, offsets, mode=mode, **settings)


family(
    "bags",
    {
        "sum": (bag("sum"), ints(7, 9), t(7, 3), starts(9, 4)),
        "mean": (bag("mean"), ints(7, 9), t(7, 3), starts(9, 4)),
        "max": (bag("max"), ints(7, 9), t(7, 3), starts(9, 4)),
        "sum, padding": (bag("sum", padding_idx=2), ints(4, 9), t(4, 3), starts(9, 4)),
        "mean, padding": (bag("mean", padding_idx=-1), ints(4, 9), t(4, 3), starts(9, 4)),
        "max, padding": (bag("max", padding_idx=1), ints(4, 9), t(4, 3), starts(9, 4)),
        "last offset": (
            bag("mean", include_last_offset=True),
            ints(7, 9),
            t(7, 3),
            lambda: torch.cat([starts(9, 3)(), torch.tensor([9])]),
        ),
        "rows": (lambda i, w: F.embedding_bag(i, w), ints(5, 3, 4), t(5, 2)),
        "weights": (
            lambda i, w, s: F.embedding_bag(i, w, per_sample_weights=s, mode="sum"),
            ints(5, 3, 4),
            t(5, 2),
            t(3, 4),
        ),
        "weights, padding": (
            lambda i, w, s: F.embedding_bag(i, w, per_sample_weights=s, mode="sum", padding_idx=1),
            ints(3, 3, 4),
            t(3, 2),
            t(3, 4),
        ),
    },
)

family(
    "margins",
    {
        "multi": (
            lambda x, y, w: F.multi_margin_loss(x, y, weight=w, p=2),
            t(4, 5),
            ints(5, 4),
            constant(unit(5)),
        ),
        "multi of one": (
            lambda x, y, w: F.multi_margin_loss(x, y, weight=w, margin=0.5),
            t(5),
            ints(5),
            constant(unit(5)),
        ),
        "multi without reduction": (
            lambda x, y, w: F.multi_margin_loss(x, y, weight=w, reduction="none"),
            t(4, 5),
            ints(5, 4),
            constant(unit(5)),
        ),
        "multilabel of a number": (F.multilabel_margin_loss, t(), ints(1)),
        "smoothed, none": (
            lambda x, y, w: F.cross_entropy(x, y, w, label_smoothing=0.1, reduction="none"),
            t(4, 3, 2),
            ints(3, 4, 2),
            constant(unit(3)),
        ),
        "smoothed, some ignored": (
            lambda x, y, w: F.cross_entropy(x, y, w, label_smoothing=0.2, ignore_index=1),
            t(4, 3),
            ints(3, 4),
            constant(unit(3)),
        ),
        "smoothed, some ignored, without weights": (
            lambda x, y: F.cross_entropy(x, y, label_smoothing=0.2, ignore_index=1),
            t(6, 3),
            ints(3, 6),
        ),
    },
)

family(
    "systems",
    {
        **{
            f"lstsq {driver}": (
                lambda a, b, driver=driver: torch.linalg.lstsq(a, b, driver=driver)[0],
                t(5, 3),
                t(5, 2),
            )
            for driver in ("gels", "gelsy", "gelsd", "gelss")
        },
        "lstsq, all results": (
            lambda a, b: tuple(torch.linalg.lstsq(a, b, driver="gelsd")),
            constant(t(5, 3)),
            constant(t(5, 2)),
        ),
        "lstsq of vectors": (lambda a, b: torch.linalg.lstsq(a, b)[0], t(4, 5, 3), t(4, 5)),
        "lstsq, wide": (lambda a, b: torch.linalg.lstsq(a, b)[0], t(2, 2, 4), t(2, 2, 3)),
        "lstsq, one right side for a stack": (
            lambda a, b: torch.linalg.lstsq(a, b)[0],
            t(2, 5, 3),
            t(1, 5, 3),
        ),
        "matrix_rank": (
            lambda a, atol: torch.linalg.matrix_rank(a, atol=atol),
            constant(t(2, 4, 3)),
            constant(unit(2)),
        ),
        **{
            f"weight_norm {dim}": (
                lambda v, g, dim=dim: torch._weight_norm(v, g, dim),
                t(4, 3, 2),
                t(4, 1, 1) if dim == 0 else t(1, 1, 2),
            )
            for dim in (0, 2)
        },
        "cov": (
            lambda x, f, a: torch.cov(x, fweights=f, aweights=a),
            t(3, 6),
            lambda: 1 + ints(3, 6)(),
            constant(unit(6)),
        ),
        "istft": (
            lambda x, w: torch.istft(x, 8, window=w),
            t(5, 7, dtype=torch.complex128),
            constant(lambda: 1 + unit(8)()),
        ),
        "conv_tbc": (lambda x, w, b: torch.conv_tbc(x, w, b, 1), t(5, 2, 3), t(3, 3, 4), t(4)),
        "int_mm": (
            lambda a, b: torch._int_mm(a, b),
            ints(9, 17, 8, dtype=torch.int8),
            ints(9, 8, 8, dtype=torch.int8),
        ),
        "scaled_mm": (
            lambda a, b, s, r: torch._scaled_mm(
                a.to(torch.float8_e4m3fn),
                b.to(torch.float8_e4m3fn).t(),
                s,
                r,
                out_dtype=torch.float32,
            ),
            constant(t(16, 16, dtype=torch.float32)),
            constant(t(16, 16, dtype=torch.float32)),
            constant(lambda: unit()().float()),
            constant(lambda: unit()().float()),
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
