"""The options ``chunk_size`` and ``progress``: how many samples at a time, and a bar of them."""

import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch import SymInt, Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from functorch_ext._memory import UNITS, Budget, MeasuredChunks, budget_of

_Result = TypeVar("_Result")


def checked_chunk_size(
    transform: str, chunk_size: "ChunkSize", progress: bool = False
) -> "int | Chunking | None":
    """The option as a number, where it is one and nothing is to be shown."""
    if chunk_size is None and not progress:
        return None
    if isinstance(chunk_size, str | Chunking) or progress:
        return Chunking.of(transform, chunk_size, progress)
    return _checked_number(transform, chunk_size)


def _checked_number(transform: str, chunk_size: Any) -> int | None:
    if chunk_size is None or isinstance(chunk_size, SymInt):
        return chunk_size  # type: ignore[return-value]
    if not isinstance(chunk_size, bool | Tensor):
        with contextlib.suppress(TypeError):
            number = operator.index(chunk_size)
            if number >= 1:
                return number
    # torch.func's words, by which programs know the errors.
    wanted = "chunk_size should be None or greater than 0"
    if transform == "jacrev":
        wanted = "`chunk_size` should be greater than 0, or None"
    raise ValueError(
        f"functorch_ext.{transform}: {wanted}, but got {chunk_size!r}. Give a whole number, or "
        "text: 'auto' or an amount of memory, such as '512 MiB'."
    )


class Chunking:
    """A chunk size that is found while running, or whose chunks are shown."""

    def __init__(
        self,
        transform: str,
        size: int | None,
        budget: Budget | None = None,
        progress: bool = False,
    ) -> None:
        self._transform, self._size = transform, size
        self._budget, self._progress = budget, progress

    @staticmethod
    def of(transform: str, chunk_size: "ChunkSize", progress: bool) -> "Chunking":
        """What the options of a transform ask for."""
        if isinstance(chunk_size, Chunking):
            return chunk_size
        if not isinstance(chunk_size, str):
            return Chunking(transform, _checked_number(transform, chunk_size), None, progress)
        budget = budget_of(chunk_size)
        if budget is None:
            raise ValueError(
                f"functorch_ext.{transform}: chunk_size as text must be 'auto' or an amount of "
                f"memory, such as '512 MiB': a number greater than 0 and {', '.join(UNITS[:-1])} "
                f"or {UNITS[-1]}. But got {chunk_size!r}."
            )
        return Chunking(transform, None, budget, progress)

    def of_call(self, total: int, like: Iterable[Any]) -> "ChunkedCall":
        """The chunks of one call on tensors like these. While it is traced: all at once."""
        if self._budget is not None and not _get_current_dispatch_mode_stack():
            measured = self._budget.chunks(total, like)
            pieces: Iterable[tuple[int, int]] = measured
        else:
            measured, pieces = None, even_pieces(total, self._size)
        bar = _bar(self._transform, total) if self._progress else None
        return ChunkedCall(pieces, measured, bar)


# Of public functions. A Chunking is what a function that is made of another one gives it.
ChunkSize = int | str | Chunking | None


class ChunkedCall:
    """The pieces ``(start, count)`` of one call, in order, and how to compute each of them."""

    def __init__(
        self, pieces: Iterable[tuple[int, int]], measured: MeasuredChunks | None, bar: Any
    ) -> None:
        self._pieces, self._measured, self._bar = pieces, measured, bar

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self._bar is None:
            yield from self._pieces
            return
        with self._bar as bar:
            for start, count in self._pieces:
                yield start, count
                bar.update(count)

    def call(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """``function(*args)`` on the piece that came last."""
        return function(*args) if self._measured is None else self._measured.call(function, *args)


def even_pieces(total: int, size: int | None) -> Iterator[tuple[int, int]]:
    step = max(total if size is None else size, 1)
    for start in range(0, max(total, 1), step):
        yield start, min(step, total - start)


def _bar(transform: str, total: int) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError(
            f"functorch_ext.{transform}: progress=True shows a bar of the package tqdm, which "
            "isn't installed: pip install tqdm, or functorch_ext[progress]."
        ) from error
    return tqdm(total=total, desc=transform)
