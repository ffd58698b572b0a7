"""More of the table of test_batching_rules: views, indexing and linear algebra."""

import torch
import torch.nn.functional as F

from test.rules.batching_cases import (
    bools,
    constant,
    family,
    ints,
    permutation,
    positive_definite,
    regular,
    set_item,
    symmetric,
    t,
    unit,
    written,
)

family(
    "view",
    {
        "reshape": (lambda x: (x.reshape(-1), x.reshape(2, 6), x.reshape(3, 2, -1)), t(3, 4)),
        "flatten": (lambda x: (x.flatten(1), x.ravel(), x.unflatten(-1, (2, 2))), t(2, 3, 4)),
        "transpose": (lambda x: (x.T, x.mT, x.transpose(0, -1), x.swapaxes(0, 1)), t(3, 4)),
        "permute": (lambda x: (x.permute(2, 0, 1), x.movedim(0, -1)), t(2, 3, 4)),
        "squeeze": (lambda x: (x.squeeze(), x.squeeze(0), x.squeeze((0, 2))), t(1, 3, 1)),
        "squeeze of a scalar": (lambda x: (x.squeeze(), x.unsqueeze(-1), x.view(1, 1)), t()),
        "expand": (lambda x: (x.expand(2, 3, 4), x.expand(-1, 4), x.expand_as(x)), t(3, 1)),
        "broadcast_to": (
            lambda x, y: (x.broadcast_to(3, 4), torch.broadcast_tensors(x, y)),
            t(4),
            t(3, 1),
        ),
        "narrow": (lambda x: (x.narrow(0, 1, 2), x.select(-1, 0), x[:, 1:3], x[..., -1]), t(3, 4)),
        "slice": (lambda x: (x[::2], x[-2:], x[None, 1], x[..., None]), t(4, 3)),
        "split": (lambda x: (x.split(2), x.split([1, 3], -1), x.chunk(2, 1), x.unbind(0)), t(4, 4)),
        "tensor_split": (lambda x: x.tensor_split(3, 0), t(4, 3)),
        "diagonal": (lambda x: (x.diagonal(), x.diagonal(1, -1, 0)), t(3, 4)),
        "diag": (lambda x: (x.diag(), x[0].diag(1), torch.diag_embed(x)), t(3, 3)),
        "trace": (torch.trace, t(3, 3)),
        "unfold": (lambda x: (x.unfold(0, 2, 1), x.unfold(-1, 3, 2)), t(4, 5)),
        "view_as_real": (torch.view_as_real, t(3, dtype=torch.complex128)),
        "flip": (lambda x: (x.flip(0), x.flip(0, -1), x.fliplr()), t(3, 4)),
        "roll": (lambda x: (x.roll(1), x.roll(2, 0), x.roll((1, 2), (0, -1))), t(3, 4)),
        "rot90": (torch.rot90, t(3, 4)),
        "repeat": (lambda x: (x.repeat(2, 1), x.repeat(2, 1, 2), x.tile(2)), t(3, 2)),
        "repeat_interleave": (
            lambda x: (x.repeat_interleave(2, 0), x.repeat_interleave(2)),
            t(3, 2),
        ),
        "tril triu": (lambda x: (x.tril(), x.triu(1), x.tril(-1)), t(3, 4)),
        "contiguous": (lambda x: (x.T.contiguous(), x.clone(), x.detach()), t(3, 4)),
        "cat": (lambda x, y: (torch.cat([x, y]), torch.cat([x, x, y], -2)), t(2, 3), t(1, 3)),
        "stack": (lambda x, y: (torch.stack([x, y]), torch.stack([y, x], -1)), t(3), t(3)),
        "hstack": (lambda x, y: (torch.hstack([x, y]), torch.vstack([x, y])), t(3), t(3)),
        "meshgrid": (lambda x, y: torch.meshgrid(x, y, indexing="ij"), t(3), t(2)),
        "pad": (lambda x: (F.pad(x, (1, 2)), F.pad(x, (0, 1, 2, 0), value=3.0)), t(3, 4)),
        "pad negative": (lambda x: F.pad(x, (-1, 1)), t(3, 4)),
        "pad reflect": (lambda x: F.pad(x, (1, 2, 1, 0), mode="reflect"), t(1, 2, 4, 4)),
        "pad replicate": (lambda x: F.pad(x, (1, 2), mode="replicate"), t(1, 2, 4)),
        "pad circular": (lambda x: F.pad(x, (1, 2), mode="circular"), t(1, 2, 4)),
        "pad 3d": (lambda x: F.pad(x, (1, 1) * 3, mode="replicate"), t(1, 2, 2, 3, 2)),
        "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), t(2, 4, 3, 3)),
        "im2col": (lambda x: F.unfold(x, 2, stride=2), t(2, 2, 4, 4)),
    },
)
family(
    "factory",
    {
        "zeros_like": (lambda x: (torch.zeros_like(x), torch.ones_like(x)), t(3, 2)),
        "full_like": (lambda x: torch.full_like(x, 2.5), t(3, 2)),
        "other dtype": (lambda x: torch.zeros_like(x, dtype=torch.int32), t(3, 2)),
        "empty_like": (lambda x: torch.empty_like(x).fill_(1).mul_(x), t(3, 2)),
        "new": (lambda x: (x.new_zeros(2), x.new_ones(2, 3), x.new_full((2,), 7)), t(3, 2)),
        "new_empty": (lambda x: x.new_empty(3, 2).copy_(x), t(3, 2)),
        "new_empty_strided": (lambda x: x.new_empty_strided((2, 3), (3, 1)).fill_(1), t(3, 2)),
        "new_tensor": (lambda x: x.new_tensor([1, 2]) + x, t(3, 2)),
        "plain factories": (lambda x: torch.arange(2) + x * torch.eye(3, 2).double(), t(3, 2)),
    },
)

BY_ROW, PAIR = permutation(4), ints(4, 2, 3)
family(
    "indexing",
    {
        "index": (lambda x, i: (x[i], x[:, i], x[..., i]), t(4, 4), ints(4, 3)),
        "index of rank 2": (lambda x, i: x[i], t(4, 2), PAIR),
        "two indices": (lambda x, i, j: x[i, j], t(4, 4), PAIR, ints(4, 3)),
        "two indices apart": (lambda x, i, j: (x[i, :, j], x[:, i, j]), t(4, 4, 4), PAIR, PAIR),
        "index after None": (lambda x, i: x[None, i], t(4, 4), PAIR),
        "negative index": (lambda x, i: x[i - 4], t(4, 2), PAIR),
        "scalar index": (lambda x, i: x[i], t(4, 2), ints(4)),
        "index_put": (lambda x, i, v: set_item(x, i, v), written(t(4, 2)), BY_ROW, t(2)),
        "index_put of two": (
            lambda x, i, j, v: set_item(x, (i, j), v),
            written(t(4, 4)),
            BY_ROW,
            BY_ROW,
            t(4),
        ),
        "index_put functional": (
            lambda x, i, v: torch.index_put(x, (i,), v, accumulate=True),
            t(4, 2),
            PAIR,
            t(2, 3, 2),
        ),
        "gather": (lambda x, i: (x.gather(0, i), x.gather(-1, i)), t(4, 4), ints(4, 2, 3)),
        "gather of scalars": (lambda x, i: x.gather(0, i), t(), ints(1)),
        "scatter": (lambda x, i, s: x.scatter(0, i, s), t(4), BY_ROW, t(4)),
        "scatter of a number": (lambda x, i: x.scatter(-1, i[None], 2.5), t(3, 4), BY_ROW),
        "scatter_add": (lambda x, i, s: x.scatter_add(0, i, s), t(4, 3), ints(4, 2, 3), t(2, 3)),
        "scatter_": (lambda x, i, s: x.clone().scatter_(0, i, s), written(t(4)), BY_ROW, t(4)),
        "scatter_reduce": (
            lambda x, i, s: x.scatter_reduce(0, i, s, "sum", include_self=False),
            t(4),
            ints(4, 6),
            t(6),
        ),
        "scatter_reduce amax": (
            lambda x, i, s: x.scatter_reduce(0, i, s, "amax"),
            t(4),
            ints(4, 6),
            t(6),
        ),
        "index_select": (
            lambda x, i: (x.index_select(0, i), x.index_select(-1, i)),
            t(4, 4),
            ints(4, 3),
        ),
        "index_select of a scalar": (lambda x, i: x.index_select(0, i), t(), ints(1, 1)),
        "index_add": (lambda x, i, s: x.index_add(0, i, s), t(4, 2), ints(4, 3), t(3, 2)),
        "index_copy": (lambda x, i, s: x.index_copy(0, i, s), t(4, 2), BY_ROW, t(4, 2)),
        "index_fill": (lambda x, i, v: x.index_fill(0, i, v), t(4, 2), ints(4, 2), t()),
        "take_along_dim": (lambda x, i: x.take_along_dim(i, 0), t(4, 2), ints(4, 3, 2)),
        "take": (torch.take, t(4, 2), ints(8, 3)),
        "masked where": (lambda x, m: torch.where(m, x, 0.0).sum(), t(4, 2), bools(4, 1)),
        "embedding": (F.embedding, ints(5, 3), t(5, 2)),
        "embedding of rank 2": (F.embedding, ints(5, 3, 2), t(5, 2)),
        "embedding padding": (lambda i, w: F.embedding(i, w, padding_idx=1), ints(5, 3), t(5, 2)),
        "searchsorted": (lambda s, x: torch.searchsorted(s.sort().values, x), t(5), t(3)),
        "bucketize": (lambda x, s: torch.bucketize(x, s.sort().values), t(3, 2), t(5)),
    },
)

RANKS = {1: (3,), 2: (3, 3), 3: (2, 3, 3), 4: (1, 2, 3, 3)}
family(
    "matmul",
    {f"{i} by {j}": (torch.matmul, t(*RANKS[i]), t(*RANKS[j])) for i in RANKS for j in RANKS},
)
family(
    "matmul",
    {
        "mm": (torch.mm, t(2, 3), t(3, 4)),
        "mv dot": (lambda a, x: (torch.mv(a, x), torch.dot(x, x), torch.vdot(x, x)), t(3, 3), t(3)),
        "bmm": (torch.bmm, t(2, 3, 4), t(2, 4, 2)),
        "baddbmm": (
            lambda c, a, b: torch.baddbmm(c, a, b, beta=2),
            t(3, 2),
            t(2, 3, 4),
            t(2, 4, 2),
        ),
        "addmm": (lambda c, a, b: torch.addmm(c, a, b, beta=2, alpha=3), t(4), t(2, 3), t(3, 4)),
        "addmv": (torch.addmv, t(2), t(2, 3), t(3)),
        "addmv, true": (
            lambda c, a, x: torch.addmv(c, a, x, beta=True, alpha=True),
            t(2),
            t(2, 3),
            t(3),
        ),
        "addbmm": (torch.addbmm, t(3, 2), t(2, 3, 4), t(2, 4, 2)),
        "outer": (torch.outer, t(2), t(3)),
        "outer of one number": (lambda x, y: (torch.ger(x, y), x[:, None] @ y[None]), t(2), t(1)),
        "linear": (F.linear, t(5, 3), t(2, 3), t(2)),
        "linear of rank 1": (F.linear, t(3), t(2, 3), t(2)),
        "linear of rank 1 without bias": (F.linear, t(3), t(2, 3)),
        "linear of rank 3": (F.linear, t(2, 5, 3), t(2, 3), t(2)),
        "linear without bias": (F.linear, t(5, 3), t(2, 3)),
        "bilinear": (F.bilinear, t(5, 3), t(5, 2), t(4, 3, 2), t(4)),
        "einsum": (lambda a, b: torch.einsum("ij,jk->ki", a, b), t(2, 3), t(3, 4)),
        "einsum trace": (lambda a: (torch.einsum("ii", a), torch.einsum("ij->j", a)), t(3, 3)),
        "einsum of three": (lambda a, b, c: torch.einsum("i,ij,j->", a, b, c), t(2), t(2, 3), t(3)),
        "einsum ellipsis": (lambda a, b: torch.einsum("...i,ji->...j", a, b), t(2, 4, 3), t(2, 3)),
        "tensordot": (lambda a, b: torch.tensordot(a, b, 2), t(2, 3, 4), t(3, 4, 2)),
        "kron": (torch.kron, t(2, 2), t(2, 3)),
        "cross": (lambda a, b: torch.linalg.cross(a, b), t(2, 3), t(2, 3)),
    },
)


def low_rank_svd(a):
    """What does not depend on the signs of the singular vectors."""
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return s, u @ vh, (u * s.sin()) @ vh


def spectral(a):
    values, vectors = torch.linalg.eigh(a)
    return values, (vectors * values.sin()) @ vectors.mT


family(
    "linalg",
    {
        "vander": (
            lambda x: (torch.vander(x), torch.vander(x, 2, True), torch.vander(x, 0).sum()),
            constant(t(3)),
        ),
        "solve": (torch.linalg.solve, regular(3), t(3, 2)),
        "solve of a vector": (torch.linalg.solve, regular(3), t(3)),
        "solve from the right": (
            lambda a, b: torch.linalg.solve(a, b, left=False),
            regular(3),
            t(2, 3),
        ),
        "solve of stacks": (lambda a, b: torch.linalg.solve(a + 0 * b, b), regular(3), t(2, 3, 3)),
        "inv": (lambda a: (torch.linalg.inv(a), torch.inverse(a)), regular(3)),
        "det": (lambda a: (torch.linalg.det(a), torch.logdet(a @ a.T)), regular(3)),
        "slogdet": (lambda a: tuple(torch.linalg.slogdet(a)), regular(3)),
        "cholesky": (torch.linalg.cholesky, positive_definite(3)),
        "cholesky_solve": (
            lambda b, a: torch.cholesky_solve(b, torch.linalg.cholesky(a)),
            t(3, 2),
            positive_definite(3),
        ),
        "svd": (low_rank_svd, t(4, 3)),
        "svdvals": (torch.linalg.svdvals, t(4, 3)),
        "eigh": (symmetric(spectral), t(3, 3)),
        "eigvalsh": (symmetric(torch.linalg.eigvalsh), t(3, 3)),
        "qr": (lambda a: tuple(torch.linalg.qr(a)), t(4, 3)),
        "solve_triangular": (
            lambda a, b: torch.linalg.solve_triangular(a.triu(), b, upper=True),
            regular(3),
            t(3, 2),
        ),
        "pinv": (torch.linalg.pinv, t(4, 3)),
        "matrix_power": (lambda a: torch.linalg.matrix_power(a, 3), regular(3)),
        "matrix_exp": (torch.linalg.matrix_exp, unit(3, 3)),
        "matrix_norm": (torch.linalg.matrix_norm, t(4, 3)),
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
