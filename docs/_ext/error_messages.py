"""Writes the page of all messages: read from the sources, where they are raised.

What isn't constant in a message is an ellipsis.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

HEADER = """# All messages

What functorch_ext itself raises, as it stands in its sources; `…` is what depends on your program.
Messages that begin otherwise are PyTorch's own, for a sample. Search for a few constant words.
[Errors, by message](errors.md) explains the frequent ones.

| Raised by | Error | Message |
| --- | --- | --- |
"""

# What TORCH_CHECK and its kin raise.
CHECKS = {
    "TORCH_CHECK": "RuntimeError",
    "TORCH_CHECK_INDEX": "IndexError",
    "TORCH_CHECK_TYPE": "TypeError",
    "TORCH_CHECK_VALUE": "ValueError",
    "TORCH_CHECK_NOT_IMPLEMENTED": "NotImplementedError",
}
PLACE = re.compile(r"^functorch_ext(?:\.([a-z_…]+))?: ?")


def of_python(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            function = node.exc.func
            yield getattr(function, "id", "RuntimeError"), text_of(node.exc.args[0])


def text_of(node: ast.expr) -> str:
    """A string, with an ellipsis for what is computed."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return "…"


def of_cpp(path: Path) -> Iterator[tuple[str, str]]:
    text = path.read_text()
    for call in re.finditer(r"\b(TORCH_CHECK\w*|raise_\w+)\((.*?)\);", text, re.DOTALL):
        # Strings next to each other are one; between others stands something computed.
        body = re.sub(r'"\s*\n\s*"', "", call[2])
        strings = re.findall(r'"((?:[^"\\]|\\.)*)"', body)
        yield CHECKS.get(call[1], "RuntimeError"), "…".join(strings)


def messages(root: Path) -> list[tuple[str, str, str]]:
    found = set()
    for path in sorted((root / "functorch_ext").rglob("*.py")):
        found |= {entry for error, text in of_python(path) if (entry := row(error, text))}
    for path in sorted((root / "csrc").rglob("*.[ch]*")):
        found |= {entry for error, text in of_cpp(path) if (entry := row(error, text))}
    return sorted(found)


def row(error: str, text: str) -> tuple[str, str, str] | None:
    place = PLACE.match(text)
    if not place or not error[0].isupper():
        return None
    message = re.sub(r"…[…\s]*…", "…", text[place.end() :].replace("\\n", " "))
    where = "several" if place[1] is None or "…" in place[1] else place[1]
    return where, error, " ".join(message.split())


def write(root: Path, page: Path) -> None:
    rows = [f"| {where} | {error} | {cell(message)} |" for where, error, message in messages(root)]
    text = HEADER + "\n".join(rows) + "\n"
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def cell(message: str) -> str:
    return re.sub(r"([|*_`<>\[\]$\\])", r"\\\1", message)
