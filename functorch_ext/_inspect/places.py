"""Places in the program: the line of the user's that a call or an error comes from."""

import dataclasses
import functools
import linecache
import os
import sysconfig
import types
from collections.abc import Iterator

import optree
import torch

_FUNCTORCH_EXT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
_LIBRARIES = tuple(
    os.path.join(os.path.dirname(os.path.abspath(module.__file__ or "")), "")
    for module in (torch, optree)
)
_STANDARD_LIBRARY = os.path.join(sysconfig.get_path("stdlib"), "")


@dataclasses.dataclass(frozen=True)
class Place:
    """A call in the program's text.

    Attributes:
        file: The file's path.
        line: The line.
        function: The qualified name of the function around it.
        code: The text of the call, or of the line where that isn't known.
    """

    file: str
    line: int
    function: str
    code: str

    @property
    def short(self) -> str:
        """The file's name and the line."""
        return f"{os.path.basename(self.file)}:{self.line}"

    def __str__(self) -> str:
        return f"{_relative(self.file)}:{self.line}, in {self.function}: {self.code}"


def is_ours(code: types.CodeType) -> bool:
    """Is it a function of this package?"""
    return code.co_filename.startswith(_FUNCTORCH_EXT)


def is_users(code: types.CodeType) -> bool:
    """Is it a function of the program's, rather than of PyTorch, of Python or of this package?"""
    # Code itself may have no hash: what Dynamo has rewritten may hold a dict.
    return _is_users_file(code.co_filename)


@functools.lru_cache(maxsize=4096)
def _is_users_file(file: str) -> bool:
    if file.startswith((_FUNCTORCH_EXT, *_LIBRARIES, "<frozen ", "<eval_with_key>")):
        return False
    return not file.startswith(_STANDARD_LIBRARY) or "site-packages" in file


def frames(frame: types.FrameType | None) -> Iterator[types.FrameType]:
    """A frame and those that called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def place_of_call(frame: types.FrameType | None) -> Place | None:
    """Where the program is that a frame runs in."""
    for each in frames(frame):
        if is_users(each.f_code):
            return place(each.f_code, each.f_lasti, each.f_lineno)
    return None


def place_of_error(trace: types.TracebackType | None) -> Place | None:
    """The innermost place of the program's in a traceback."""
    found = None
    while trace is not None:
        code = trace.tb_frame.f_code
        if is_users(code):
            found = (code, trace.tb_lasti, trace.tb_lineno)
        trace = trace.tb_next
    return None if found is None else place(*found)


def place(code: types.CodeType, instruction: int, line: int | None) -> Place:
    """The place of an instruction."""
    try:
        return _place(code, instruction, line)
    except TypeError:  # no hash
        return _place.__wrapped__(code, instruction, line)


@functools.lru_cache(maxsize=4096)
def _place(code: types.CodeType, instruction: int, line: int | None) -> Place:
    number = line or code.co_firstlineno
    name = code.co_qualname.rpartition("<locals>.")[2]
    return Place(code.co_filename, number, name, _text(code, instruction, number))


def _text(code: types.CodeType, instruction: int, number: int) -> str:
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename)
    if not 0 < number <= len(lines):
        return "?"
    whole = lines[number - 1].strip()
    positions = list(code.co_positions())
    index = instruction // 2
    if not 0 <= index < len(positions):
        return whole
    first, last, start, end = positions[index]
    if first is None or first != last or start is None or end is None or first > len(lines):
        return whole
    return lines[first - 1].encode()[start:end].decode(errors="replace") or whole


def _relative(file: str) -> str:
    """The path as seen from the working directory, if the file lies there."""
    here = os.path.join(os.getcwd(), "")
    return file[len(here) :] if file.startswith(here) else file
