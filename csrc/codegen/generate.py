"""Writes the tables that the C++ sources include, from PyTorch's own list of operators.

``torchgen`` ships native_functions.yaml with every release: all operators with their schemas and
tags. What holds for a whole family of operators (which are pointwise, which have a functional form)
is read from there at build time, so that nothing has to be listed by hand.

Run by setup.py as ``generate.py OUT_DIR``. A file whose text has not changed is left alone, so that
ninja compiles nothing again.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import forward
import pointwise
import releases
import torchgen
import variants
from torchgen.gen import parse_native_yaml
from torchgen.model import NativeFunction

# Each takes all native functions and returns the files it makes: their names and texts.
Generator = Callable[[Sequence[NativeFunction]], dict[str, str]]
GENERATORS: list[Generator] = [
    forward.generate,
    pointwise.generate,
    releases.generate,
    variants.generate_functional_variants,
    variants.generate_view_copy_variants,
]


def native_functions() -> list[NativeFunction]:
    """All operators of the installed torch."""
    folder = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native"
    parsed = parse_native_yaml(str(folder / "native_functions.yaml"), str(folder / "tags.yaml"))
    return list(parsed.native_functions)


def main(out_dir: Path) -> None:
    """Runs every generator and writes the files whose text changed."""
    functions = native_functions()
    out_dir.mkdir(parents=True, exist_ok=True)
    for generate in GENERATORS:
        for name, text in generate(functions).items():
            path = out_dir / name
            text = f"// Written by csrc/codegen/generate.py.\n{text}"
            if not path.exists() or path.read_text() != text:
                path.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes the tables that the C++ sources include.")
    parser.add_argument("out_dir", type=Path, help="the folder to write them into")
    main(parser.parse_args().out_dir)
