"""A line on the terminal while compiling takes long."""

import sys
import threading
import time
from types import TracebackType

_FIRST = 2.0  # seconds: what is quicker shows nothing


class Progress:
    """Shows what is being compiled, and for how long, if somebody can see it."""

    def __init__(self, name: str) -> None:
        self._name, self._done = name, threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Progress":
        self.start = time.perf_counter()
        if _is_seen():
            self._thread = threading.Thread(target=self._show, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = time.perf_counter() - self.start
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _show(self) -> None:
        wait, line = _FIRST, ""
        while not self._done.wait(wait):
            wait = 1.0
            seconds = time.perf_counter() - self.start
            line = f"functorch_ext.jit: compiling {self._name}, {seconds:.0f} s"
            print(f"\r{line}", end="", file=sys.stderr, flush=True)
        if line:
            print(f"\r{' ' * len(line)}\r", end="", file=sys.stderr, flush=True)


def _is_seen() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return sys.stderr.isatty() or type(shell).__name__ == "ZMQInteractiveShell"
