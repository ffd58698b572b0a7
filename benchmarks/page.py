"""Puts the results into a page of the documentation, between marks; the text around them stays.

A part of the page lies between the lines ``<!-- results: NAME -->`` and ``<!-- end -->``.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import bounds, instructions, memory, scaling
from benchmarks.real import tables
from benchmarks.report import TARGETS_HEAD, peers_table, table, targets_row

Results = dict[str, Any]  # By part, as build/benchmarks.json has them.


def fill(page: Path, results: Results) -> None:
    """Replaces what lies between the marks of the parts that there are results of."""
    parts: dict[str, str] = {}
    for part, tables_of in TABLES.items():
        if part in results:
            parts |= tables_of(results[part])
    replace(page, parts)


def _times(times: Results) -> dict[str, str]:
    return {
        "environment": _environment(times),
        "targets": _targets(times),
        "missed": _missed(times),
        "peers": "\n\n".join(_by_setting(times, peers_table)),
    }


def models(report: Results) -> dict[str, str]:
    """The parts about networks of real size."""
    return {
        "models_setting": tables.setting(report),
        "models_limits": tables.limits(report),
        "models": tables.tables(report),
    }


def replace(page: Path, parts: dict[str, str]) -> None:
    """Puts each part between its marks. What lies between others stays."""

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{parts[match[2]]}\n\n{match[3]}" if match[2] in parts else match[0]

    marks = re.compile(r"(<!-- results: (\w+) -->).*?(<!-- end -->)", re.DOTALL)
    page.write_text(marks.sub(replaced, page.read_text()))


def _environment(times: Results) -> str:
    versions = {"Python": times["python"], "torch": times["torch"], **times["peers"]}
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    devices = "".join(f", {device}" for device in times["devices"])
    return f"{times['machine']}{devices}; {named}; float32; {times['rounds']} rounds at most."


def _setting(setting: Results) -> str:
    threads = setting["threads"]
    return f"{setting['device']}, {threads} {'thread' if threads == 1 else 'threads'}"


def _by_setting(times: Results, make: Any) -> Iterator[str]:
    for setting in times["settings"]:
        yield f"### {_setting(setting)}\n\n{make(setting['workloads'])}"


def _targets(times: Results) -> str:
    def make(workloads: Results) -> str:
        return table(TARGETS_HEAD, [targets_row(*item) for item in workloads.items()])

    return "\n\n".join(_by_setting(times, make))


def _missed(times: Results) -> str:
    """What isn't reached on one thread, as a list."""
    lines = [
        f"- {name}: {verdict['target']} is asked for, {verdict['measured']:.2f} measured."
        for name, result in times["settings"][0]["workloads"].items()
        for verdict in result["verdicts"]
        if not verdict["reached"]
    ]
    return "\n".join(lines) if lines else "None."


# What each part of the suite says on the page, by mark.
TABLES: dict[str, Callable[[Any], dict[str, str]]] = {
    "times": _times,
    "bounds": lambda result: {"bounds": bounds.tables(result)},
    "instructions": lambda result: {"instructions": instructions.tables(result)},
    "scaling": lambda result: {"scaling": scaling.tables(result)},
    "memory": lambda result: {"memory": memory.tables(result)},
    "real": models,
    "real_on_all_threads": lambda result: {
        "models_threads_setting": tables.setting(result),
        "models_threads": tables.in_brief(result),
    },
}
