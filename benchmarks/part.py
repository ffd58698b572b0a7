"""The command line that the parts of the benchmarks besides the times have in common."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path("build/benchmarks")


def run_part(
    name: str, description: str, measure: Callable[[], Any], tables: Callable[[Any], str]
) -> None:
    """Measures, prints the tables, and writes the results as JSON.

    Args:
        name: the part's name, that of its file too.
        description: what ``--help`` says.
        measure: returns the results, which fit into JSON.
        tables: makes Markdown of them.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=FOLDER / f"{name}.json")
    output: Path = parser.parse_args().output
    results = measure()
    print(f"\n{tables(results)}", flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=2) + "\n")
