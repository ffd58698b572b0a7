"""How a sparse matrix of derivatives is computed from a few products."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from functorch_ext._basis import each_chunk
from functorch_ext._chunk_sizes import Chunking
from functorch_ext._linear_solvers import all_true
from functorch_ext._sparsity.coloring import column_colors, star_colors

COLUMNS, ROWS = "columns", "rows"

# Products of the matrix with the columns (by rows: of the rows with the matrix) of what is given.
Multiply = Callable[[Tensor], Tensor]


class Plan:
    """Which products are made, and where in them the entries are.

    The product with a sum of columns of one colour holds each of their entries by itself. Products
    are the rows of a matrix.
    """

    def __init__(
        self,
        rows: Tensor,
        columns: Tensor,
        shape: tuple[int, int],
        like: Tensor,
        symmetric: bool,
    ) -> None:
        self.shape = shape
        self.by, colors, at = (_of_hessian if symmetric else _of_jacobian)(rows, columns, shape)
        self.products = int(colors.max()) + 1 if colors.numel() else 1
        self.rows, self.columns = rows.to(like.device), columns.to(like.device)
        self.indices = torch.stack([self.rows, self.columns])
        starts = torch.bincount(rows, minlength=shape[0]).cumsum(0)
        self.row_starts = torch.cat([starts.new_zeros(1), starts]).to(like.device)
        self._at = at.to(like.device)
        self._seeds = torch.zeros(self.products, len(colors), dtype=like.dtype)
        self._seeds[colors, torch.arange(len(colors))] = 1
        self._seeds = self._seeds.to(like.device)
        self._checked = False

    def values(self, multiply: Multiply, chunking: int | Chunking | None) -> Tensor:
        """The entries, in the order of ``indices``.

        The first time, a product with a vector without zeros shows whether any are missing.
        """
        seeds = self._seeds
        check = not self._checked and not _get_current_dispatch_mode_stack()
        if check:
            probe = _probe(seeds)
            seeds = torch.cat([seeds, probe[None]])
        if chunking is None:
            products = multiply(seeds)
        else:
            rows = lambda start, count: multiply(seeds.narrow(0, start, count))
            products = torch.cat(each_chunk(rows, [seeds.new_empty(len(seeds))], chunking))
        values = products.reshape(-1).index_select(0, self._at)
        if check:
            self._check(values, probe, products[-1], multiply)
            self._checked = True
        return values

    def _check(self, values: Tensor, probe: Tensor, product: Tensor, multiply: Multiply) -> None:
        values, product = values.detach(), product.detach()
        to, source = (self.rows, self.columns)[:: 1 if self.by == COLUMNS else -1]
        terms = values * probe[source].to(values.dtype)
        zeros = torch.zeros_like(product)
        difference = (product - zeros.index_add(0, to, terms)).abs()
        size = zeros.index_add(0, to, terms.abs())
        eps = max(torch.finfo(x.dtype).eps for x in (probe, values))
        # Numbers that aren't finite show nothing.
        allowed = eps**0.5 * torch.cat([size, product.abs()]).amax() if len(size) else 0
        if all_true(~(difference > allowed + 100 * eps)):
            return
        # The function may compute in a lower precision than it returns.
        noise = (product - multiply(0.7 * probe[None])[0].detach() / 0.7).abs().amax()
        if not all_true(~(difference > allowed + 100 * noise)):
            raise RuntimeError(
                "functorch_ext: the matrix of derivatives isn't zero outside of its pattern. If "
                "the pattern was given, give a larger one; if it was detected, please report the "
                "function, and give a pattern."
            )


def _probe(seeds: Tensor) -> Tensor:
    places = torch.arange(seeds.shape[1], dtype=torch.float64)
    return (1.5 + (places * 2.399963).cos()).to(seeds.device, seeds.dtype)


def _of_jacobian(
    rows: Tensor, columns: Tensor, shape: tuple[int, int]
) -> tuple[str, Tensor, Tensor]:
    """By which, the colours of these, and where among the products each entry is."""
    of_columns = column_colors(rows, columns, shape)
    by_columns = COLUMNS, of_columns, of_columns[columns] * shape[0] + rows
    fewest = int(of_columns.max()) + 1 if of_columns.numel() else 0
    # There are at least as many colours of rows as entries in a column.
    if rows.numel() == 0 or int(torch.bincount(columns).max()) >= fewest:
        return by_columns
    of_rows = column_colors(columns, rows, shape[::-1])
    if int(of_rows.max()) + 1 >= fewest:
        return by_columns
    return ROWS, of_rows, of_rows[rows] * shape[1] + columns


def _of_hessian(
    rows: Tensor, columns: Tensor, shape: tuple[int, int]
) -> tuple[str, Tensor, Tensor]:
    colors = min(
        star_colors(rows, columns, shape[0]),
        column_colors(rows, columns, shape),
        key=lambda colors: int(colors.max()) if colors.numel() else 0,
    )
    products = int(colors.max()) + 1 if colors.numel() else 0
    keys = rows * products + colors[columns]
    _, which, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    alone = counts[which] == 1
    here = colors[columns] * shape[0] + rows
    mirrored = colors[rows] * shape[0] + columns
    return COLUMNS, colors, torch.where(alone, here, mirrored)
