"""Puts the site's SVG pictures into its pages, so that they follow the page's light or dark.

A picture in an `<img>` knows what the system prefers, but not what the reader chose on the page.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform


class InlineSVG(SphinxPostTransform):
    default_priority = 5  # Before images are collected.
    formats = ("html",)

    def run(self) -> None:
        for image in list(self.document.findall(nodes.image)):
            path = Path(self.env.srcdir) / image["uri"]
            if path.suffix == ".svg" and path.is_file():
                image.replace_self(nodes.raw("", svg_of(path, image.get("alt", "")), format="html"))


def svg_of(path: Path, alt: str) -> str:
    text = path.read_text()
    text = text[text.index("<svg") :]
    # Names within pictures must differ, if a page has several.
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{path.stem}-", text)
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    svg = re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" ', text, count=1)
    return f'<div class="picture">{svg}</div>'


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(InlineSVG)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
