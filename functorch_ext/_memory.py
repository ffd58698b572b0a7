"""How many samples to compute at a time, by what a few of them take of memory."""

import os
import re
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from functorch_ext import _C
from functorch_ext._pytree import leaves_of

_Result = TypeVar("_Result")

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")  # each 1024 of the one before
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) *(" + "|".join(UNITS) + ")")

_SHARE = 0.5  # of the free memory that "auto" takes
_PROBES = (1, 2)  # samples in the chunks that are measured

_CGROUP = Path("/sys/fs/cgroup")


def budget_of(option: str) -> "Budget | None":
    """What ``"auto"`` or ``"512 MiB"`` stands for; ``None`` for other text."""
    if option == "auto":
        return Budget(None)
    parts = _AMOUNT.fullmatch(option)
    amount = int(Fraction(parts[1]) * 1024 ** UNITS.index(parts[2])) if parts else 0
    return Budget(amount) if amount > 0 else None


class Budget:
    """A bound of memory in place of a chunk size.

    What a chunk takes is a fixed part and one for each sample. Both follow from two small chunks,
    and are kept for later calls on arguments of the same shapes.
    """

    def __init__(self, amount: int | None) -> None:
        self._amount = amount
        self._costs: dict[Hashable, tuple[int, int]] = {}

    def chunks(self, total: int, like: Iterable[Any]) -> "MeasuredChunks":
        """The chunks of a call on tensors like these."""
        tensors = [_C.below_all_levels(leaf) for leaf in like if isinstance(leaf, Tensor)]
        key = (total, *((x.shape, x.dtype, x.device, x.requires_grad) for x in tensors))
        amount = self._amount
        if amount is None:
            devices = {tensor.device for tensor in tensors} or {torch.device("cpu")}
            amount = int(_SHARE * min(map(_free, devices)))
        return MeasuredChunks(total, amount, self._costs, key)


class MeasuredChunks:
    """Pieces ``(start, count)`` of a number of samples; each is computed before the next."""

    def __init__(
        self, total: int, amount: int, costs: dict[Hashable, tuple[int, int]], key: Hashable
    ) -> None:
        self._total, self._amount = total, amount
        self._costs, self._key = costs, key
        self._peaks: list[int] = []
        self._measures = False

    def __iter__(self) -> Iterator[tuple[int, int]]:
        start = 0
        if self._key not in self._costs and self._total > sum(_PROBES):
            self._measures = True
            for count in _PROBES:
                yield start, count
                start += count
            self._measures = False
            (few, many), (less, more) = _PROBES, self._peaks
            each = max((more - less) // (many - few), 0)
            self._costs[self._key] = max(less - few * each, 0), each
        fixed, each = self._costs.get(self._key, (0, 0))
        most = max((self._amount - fixed) // max(each, 1), 1)
        rest = self._total - start
        parts = -(-rest // most)
        size = -(-rest // max(parts, 1))  # as equal as they can be
        # No samples are a chunk too: its outputs have the shapes that are returned.
        for begin in range(start, max(self._total, 1), max(size, 1)):
            yield begin, min(size, self._total - begin)

    def call(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """``function(*args)``, measured where that is needed."""
        if not self._measures:
            return function(*args)
        with _Allocations() as allocations:
            result = function(*args)
        self._peaks.append(allocations.peak)
        return result


class _Allocations(TorchDispatchMode):
    """The most bytes that results of operators held together."""

    def __init__(self) -> None:
        super().__init__()
        self._held, self.peak = 0, 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __enter__(self) -> Self:
        mode = super().__enter__()
        _C.begin_onlooking()  # so that bad arguments get plain PyTorch's errors here, too
        return cast(Self, mode)

    def __exit__(self, *raised: Any) -> None:
        _C.end_onlooking()
        super().__exit__(*raised)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(x) for x in self._storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in self._storages(result):
            if id(storage) not in given and id(storage) not in self._known:
                self._hold(storage)
        return result

    @staticmethod
    def _storages(tree: Any) -> list[Any]:
        return [x.untyped_storage() for x in leaves_of(tree) if _has_storage(x)]

    def _hold(self, storage: Any) -> None:
        size, key = storage.nbytes(), id(storage)

        def released(_: Any) -> None:
            self._held -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, released)
        self._held += size
        self.peak = max(self.peak, self._held)


def _has_storage(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.layout is torch.strided and type(leaf) is Tensor


def _free(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min(_free_of_machine(), _free_of_container())


def _free_of_machine() -> int:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = re.search(r"MemAvailable: *(\d+) kB", text)
    assert available is not None
    return int(available[1]) * 1024


def _free_of_container() -> int:
    """What the process's cgroup leaves, where it has a limit."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = (_CGROUP / "memory.current").read_text().strip()
        return int(limit) - int(used)
    except (OSError, ValueError):  # no cgroup, or "max"
        return 1 << 62
