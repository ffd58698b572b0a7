"""Brings the notebooks into the site's sources, where Sphinx looks for them."""

from pathlib import Path

# Programs too: notebooks link to them.
SUFFIXES = (".md", ".ipynb", ".py")


def copy(source: Path, target: Path) -> None:
    """Links of theirs to `../docs/` are made relative to their place in the site."""
    target.mkdir(exist_ok=True)
    pages = {path.name: path for path in source.iterdir() if path.suffix in SUFFIXES}
    for old in target.iterdir():
        if old.name not in pages:
            old.unlink()
    for name, path in pages.items():
        text = path.read_text().replace("](../docs/", "](../")
        copied = target / name
        # One that hasn't changed is left alone, and so not read again.
        if not copied.exists() or copied.read_text() != text:
            copied.write_text(text)
