"""Executes the notebooks and keeps their outputs in them: what pages show and tests compare with.

    python -m tutorials.execute                  # all
    python -m tutorials.execute quickstart maml

Writes nothing unless every cell of a notebook succeeds.
"""

import argparse
import base64
import io
import os
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(__file__).parent
SECONDS = 600  # of a cell, or the start of a kernel, on a busy machine
COLOURS = 256  # of a picture
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> NotebookNode:
    """The notebook with its new outputs. A cell that fails raises `CellExecutionError`."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        startup_timeout=SECONDS,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    # The kernel runs in the notebook's folder, and imports the package that was built in place.
    paths = [str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    client.execute(env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
    return notebook


def with_few_colours(picture: str) -> str:
    """The picture, a PNG in base64, with a palette: a third of the size."""
    image = Image.open(io.BytesIO(base64.b64decode(picture)))
    buffer = io.BytesIO()
    image.convert("RGBA").quantize(COLOURS, Image.Quantize.FASTOCTREE).save(
        buffer, "png", optimize=True
    )
    return base64.b64encode(buffer.getvalue()).decode()


def tidy(notebook: NotebookNode) -> None:
    """Leaves out what says nothing, and would differ each time."""
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata.tags} if "tags" in cell.metadata else {}
        for output in cell.get("outputs", ()):
            output.pop("metadata", None)
            if output.output_type in ("display_data", "execute_result"):
                output.metadata = {}
                if "image/png" in output.data:
                    output.data["image/png"] = with_few_colours(output.data["image/png"])
                    output.data.pop("text/plain", None)  # <Figure size ...>


def main() -> None:
    parser = argparse.ArgumentParser(prog="tutorials.execute", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="of notebooks, without .ipynb; all unless given")
    names = parser.parse_args().names
    paths = [FOLDER / f"{name}.ipynb" for name in names] or sorted(FOLDER.glob("*.ipynb"))
    for path in paths:
        start = time.perf_counter()
        notebook = execute(path)
        tidy(notebook)
        nbformat.write(notebook, path)
        seconds, size = time.perf_counter() - start, path.stat().st_size / 1024
        print(f"{path.name}: {seconds:.0f} s, {size:.0f} KiB", flush=True)


if __name__ == "__main__":
    main()
