"""Calls of operators as a table, in text and in HTML."""

import html
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from functorch_ext._inspect.calls import Call
from functorch_ext._inspect.places import Place
from functorch_ext._inspect.quantities import several, size, time

_HEAD = ("operator", "computed by", "level", "calls", "time", "memory", "line")
_NUMBERS = {"calls", "time", "memory"}
_MOST_CODE = 40


def as_text(
    name: str, calls: list[Call], loops: list[Call], seconds: float, peak: int | None
) -> str:
    """The table as text, under a summary and above what to do about loops."""
    rows: list[tuple[str, ...]] = [_HEAD]
    titles = {}
    for title, group in _groups(calls):
        titles[len(rows)] = title
        rows += [_cells(row, "  " * row.depth) for row in group]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_summary(name, calls, loops, seconds, peak), ""]
    for number, row in enumerate(rows):
        if number in titles:
            lines += ["", titles[number]]
        cells = [
            f"{cell:>{width}}" if head in _NUMBERS else f"{cell:{width}}"
            for cell, width, head in zip(row, widths, _HEAD, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *_advice(loops)])


def as_html(
    name: str, calls: list[Call], loops: list[Call], seconds: float, peak: int | None
) -> str:
    """The same as an HTML fragment."""
    style = 'style="text-align: {}"'
    left, right = style.format("left"), style.format("right")
    sides = [right if head in _NUMBERS else left for head in _HEAD]
    rows = [_html_row("th", _HEAD, sides)]
    for title, group in _groups(calls):
        rows.append(f'<tr><th colspan="{len(_HEAD)}" {left}>{html.escape(title)}</th></tr>')
        for row in group:
            indented = [style.format(f"left; padding-left: {1 + 1.5 * row.depth}em"), *sides[1:]]
            rows.append(_html_row("td", _cells(row, ""), indented))
    summary = html.escape(_summary(name, calls, loops, seconds, peak))
    advice = "".join(f"<p>{html.escape(line)}</p>" for line in _advice(loops) if line)
    return f"<div><p>{summary}</p><table>{''.join(rows)}</table>{advice}</div>"


def _html_row(tag: str, cells: tuple[str, ...], sides: list[str]) -> str:
    parts = [
        f"<{tag} {side}>{html.escape(cell)}</{tag}>"
        for cell, side in zip(cells, sides, strict=True)
    ]
    return f"<tr>{''.join(parts)}</tr>"


class _Row(NamedTuple):
    call: Call
    depth: int
    has_line: bool  # other than the call that it is part of


def _groups(calls: list[Call]) -> Iterator[tuple[str, list[_Row]]]:
    """The calls under their transforms, with what they were computed by."""
    for (transforms, backward), group in itertools.groupby(
        calls, key=lambda call: (call.transforms, call.backward)
    ):
        title = " > ".join(transforms) or "outside of transforms"
        if backward:
            title += ", backward"
        yield title, [row for call in group for row in _rows(call, 0, None)]


def _rows(call: Call, depth: int, line_above: Place | None) -> Iterator[_Row]:
    yield _Row(call, depth, call.place != line_above)
    for each in call.calls:
        yield from _rows(each, depth + 1, call.place)


def _cells(row: _Row, indentation: str) -> tuple[str, ...]:
    call = row.call
    return (
        indentation + call.name,
        call.by,
        call.level,
        str(call.count),
        time(call.seconds),
        size(call.allocated),
        _line(call) if row.has_line else "",
    )


def _line(call: Call) -> str:
    if call.place is None:
        return ""
    code = call.place.code
    return (
        f"{call.place.short}  {code if len(code) <= _MOST_CODE else code[: _MOST_CODE - 3] + '...'}"
    )


def _summary(
    name: str, calls: list[Call], loops: list[Call], seconds: float, peak: int | None
) -> str:
    count = several(sum(call.count for call in calls), "operator call")
    looped = several(sum(call.count for call in loops), "loop") if loops else "no loops"
    parts = [count, f"{looped} over samples", time(seconds)]
    if peak is not None:
        parts.append(f"at most {size(peak)} at a time")
    return f"{name}: {', '.join(parts)}"


def _advice(loops: list[Call]) -> list[str]:
    lines = []
    for call in loops:
        at = f", at {call.place.short}" if call.place else ""
        lines.append(f"loop: {call.name} took {time(call.seconds)}{at}. {_sentence(call.advice)}")
    return ["", *lines] if lines else []


def _sentence(text: str | None) -> str:
    text = text or ""
    if text.partition(" ")[0].isalpha():
        text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else text + "."
