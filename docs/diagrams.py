"""Draws the diagrams of the pages on the engine, as SVG for light and dark pages::

python docs/diagrams.py
"""

import dataclasses
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent

# A picture by itself follows the system; within the site, the page's colours (_static/site.css).
STYLE = """<style>
svg.fx { --ink: #1f2328; --faint: #d0d7de; --fill: #f3f6fa; }
@media (prefers-color-scheme: dark) {
svg.fx { --ink: #e6edf3; --faint: #3d444d; --fill: #1d2127; } }
svg.fx .box { fill: var(--fill); stroke: var(--ink); }
svg.fx .band { fill: none; stroke: var(--faint); stroke-dasharray: 4 4; }
svg.fx .arrow { fill: none; stroke: var(--ink); stroke-width: 1.4; }
svg.fx text { fill: var(--ink); font: 14px sans-serif; }
svg.fx .small { font-size: 12px; }
svg.fx .bold { font-weight: bold; }
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8"
orient="auto"><path d="M0 0 L8 4 L0 8 z" style="fill: var(--ink)"/></marker></defs>"""

LINE = 17  # Of text, in pixels.


@dataclasses.dataclass
class Box:
    """A box with lines of text, the first of them bold."""

    x: int
    y: int
    width: int
    lines: str
    kind: str = "box"

    @property
    def height(self) -> int:
        return LINE * len(self.lines.split("\n")) + 16

    @property
    def left(self) -> tuple[int, int]:
        return self.x, self.y + self.height // 2

    @property
    def right(self) -> tuple[int, int]:
        return self.x + self.width, self.y + self.height // 2

    @property
    def top(self) -> tuple[int, int]:
        return self.x + self.width // 2, self.y

    @property
    def bottom(self) -> tuple[int, int]:
        return self.x + self.width // 2, self.y + self.height

    def __str__(self) -> str:
        parts = [
            f'<rect class="{self.kind}" x="{self.x}" y="{self.y}" width="{self.width}" '
            f'height="{self.height}" rx="6"/>'
        ]
        for number, line in enumerate(self.lines.split("\n")):
            style = "bold" if number == 0 else "small"
            y = self.y + LINE * (number + 1) + 3
            parts.append(text(self.x + self.width // 2, y, line, style))
        return "\n".join(parts)


def text(x: int, y: int, words: str, style: str = "small", anchor: str = "middle") -> str:
    return f'<text class="{style}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


def band(y: int, height: int, words: str, width: int = 700) -> str:
    """A plane: a dashed strip with its name at the left."""
    strip = f'<rect class="band" x="10" y="{y}" width="{width}" height="{height}" rx="8"/>'
    return strip + "\n" + text(22, y + 20, words, "bold", "start")


def arrow(*points: tuple[int, int], words: str = "", at: tuple[int, int] = (0, 0)) -> str:
    path = " ".join(f"{'L' if number else 'M'}{x} {y}" for number, (x, y) in enumerate(points))
    label = text(*at, words, anchor="start") if words else ""
    return f'<path class="arrow" d="{path}" marker-end="url(#tip)"/>{label}'


def picture(width: int, height: int, *parts: object) -> str:
    body = "\n".join(str(part) for part in parts)
    return (
        f'<svg class="fx" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">\n{STYLE}\n{body}\n</svg>\n'
    )


def planes() -> str:
    """`vmap(vmap(f), (0, None))(x, y)`: what wraps what."""
    inner = Box(230, 40, 210, "wrapper of level 2\nshape (), bdim 0")
    outer = Box(230, 140, 210, "wrapper of level 1\nshape (4,), bdim 0")
    inner_y = Box(470, 40, 220, "wrapper of level 2\nshape (), bdim 0")
    x = Box(230, 240, 210, "x\nshape (3, 4)")
    y = Box(470, 240, 220, "y\nshape (4,)")
    return picture(
        720,
        320,
        band(10, 90, "plane 2"),
        text(22, 50, "the inner vmap", anchor="start"),
        band(110, 90, "plane 1"),
        text(22, 150, "the outer vmap", anchor="start"),
        band(210, 90, "plane 0"),
        text(22, 250, "plain tensors", anchor="start"),
        inner, outer, x, y, inner_y,
        arrow(inner.bottom, outer.top, words="value", at=(342, 108)),
        arrow(outer.bottom, x.top, words="value", at=(342, 208)),
        arrow(inner_y.bottom, y.top, words="value", at=(588, 158)),
    )  # fmt: skip


def route() -> str:
    """What an operator on a wrapper goes through."""
    call = Box(20, 20, 190, "x * y\none is a wrapper\nof level L, the deepest")
    entry = Box(270, 20, 190, "entry kernel\nis anything on L's plane\ndifferentiated?")
    autograd = Box(270, 140, 190, "autocast, autograd\nrecords on the wrappers")
    landing = Box(270, 230, 190, "landing kernel\nthread state as the plane\nbelow needs it")
    rule = Box(
        520, 125, 190, "batching rule\nunwrap values and bdims\ncompute below\nwrap the result"
    )
    below = Box(520, 255, 190, "the plane below\nordinary operators,\nthe same route again")
    return picture(
        730,
        345,
        call, entry, autograd, landing, rule, below,
        arrow(call.right, entry.left),
        arrow(entry.bottom, autograd.top, words="yes", at=(375, 113)),
        arrow(autograd.bottom, landing.top),
        arrow(entry.right, (615, entry.right[1]), rule.top, words="no: at once", at=(520, 45)),
        arrow(landing.right, (490, landing.right[1]), (490, rule.left[1]), rule.left),
        arrow(rule.bottom, below.top),
    )  # fmt: skip


def state() -> str:
    """Who changes which state."""
    call = Box(
        220, 15, 300, "Python hands over a function\n_C.run_batch(body, ...), _C.mapped_call(...)"
    )
    batch = Box(15, 110, 170, "BatchFrame,\nFunctionalFrame")
    forward = Box(200, 110, 170, "ForwardFrame,\nReverseFrame,\nBackwardPass")
    plane = Box(385, 110, 150, "PlaneBelow\na rule runs")
    program = Box(550, 110, 175, "OutsideRules, OnPlane,\nBelowFrame, RevivedFrame")
    tensors = Box(
        15, 230, 170, "of a tensor\nwrapper: value, bdim,\nlevel, memory\nlevel: runners, modes"
    )
    thread = Box(
        200,
        230,
        170,
        "of the thread\nThreadState: plane,\ncomputing, innermost,\ndifferentiations, ...",
    )
    torch = Box(
        385, 230, 150, "PyTorch's\ndispatch keys, grad\nmode, forward mode,\ninference mode"
    )
    process = Box(550, 230, 175, "of the process\ndual level 0\nkernels, rules,\npatches, caches")
    frames = (batch, forward, plane, program)
    return picture(
        740,
        335,
        text(15, 100, "frames, on C++'s stack", anchor="start"),
        call, *frames, tensors, thread, torch, process,
        *[arrow((call.bottom[0], call.bottom[1]), frame.top) for frame in (batch, forward)],
        arrow(batch.bottom, tensors.top),
        arrow(batch.bottom, thread.top),
        arrow(forward.bottom, tensors.top),
        arrow(forward.bottom, thread.top),
        arrow(forward.bottom, torch.top),
        arrow(forward.bottom, process.top),
        arrow(plane.bottom, thread.top),
        arrow(plane.bottom, torch.top),
        arrow(program.bottom, thread.top),
    )  # fmt: skip


DIAGRAMS = {"planes": planes, "route": route, "state-diagram": state}


def write() -> None:
    for name, draw in DIAGRAMS.items():
        (FOLDER / f"{name}.svg").write_text(draw())


if __name__ == "__main__":
    write()
