"""More of the table of test_batching_rules: sequences and bags."""

import torch
import torch.nn.functional as F

from test.rules.batching_cases import family, ints, lengths, t


def starts(total, parts):
    """Where `parts` bags start among `total` places: the first at 0."""

    def make():
        return torch.cat(
            [torch.zeros(1, dtype=torch.int64), lengths(total, parts)().cumsum(0)[:-1]]
        )

    return make


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
