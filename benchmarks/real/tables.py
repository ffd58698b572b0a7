"""What ``python -m benchmarks.real`` measured as Markdown."""

from typing import Any

from benchmarks.peers import BY_HAND, JAX_JIT, LOOP, OPACUS, OURS, OURS_JIT, TORCH_FUNC
from benchmarks.real.uses import LIMIT
from benchmarks.report import table

COLUMNS = (TORCH_FUNC, LOOP, BY_HAND, OPACUS, OURS_JIT, JAX_JIT, LIMIT)
Result = dict[str, Any]  # What __main__.run_entry returns.

# Per-sample gradients: at most so many times as long as the gradient of the whole batch.
LIMITS = {"ResNet": 1.15, "ViT": 1.15, "GPT": 1.15, "BERT": 1.15, "LSTM": 3.0, "GRU": 3.0}


def cells(result: Result, columns: tuple[str, ...] = COLUMNS) -> list[str]:
    """A row of a use's table, without the network's name."""
    row = [str(result["samples"]), f"{result['seconds'] * 1e3:.2f}"]
    for name in columns:
        if name in result["failed"]:
            row.append("fails")
        else:
            row.append(f"{result['ratios'][name]:.2f}" if name in result["ratios"] else "")
    return row


def _present(entries: dict[str, Result]) -> tuple[str, ...]:
    return tuple(
        name
        for name in COLUMNS
        if any(name in entry["ratios"] or name in entry["failed"] for entry in entries.values())
    )


def tables(report: Result) -> str:
    """A table for each use."""
    parts = []
    for use, entries in report["uses"].items():
        columns = _present(entries)
        rows = [[name, *cells(result, columns)] for name, result in entries.items()]
        parts.append(f"### {use}\n\n{table(['Network', 'samples', f'{OURS}, ms', *columns], rows)}")
    return "\n\n".join(parts)


def _beside_limit(network: str, ratios: dict[str, float]) -> list[str]:
    """How many times as long as the gradient of the batch, and what is asked for."""
    found = 1 / ratios[LIMIT]
    most = next((most for word, most in LIMITS.items() if word in network), None)
    if most is None:
        return [f"{found:.2f}", ""]
    return [f"{found:.2f}", f"≤ {most}: {'reached' if found <= most else '**missed**'}"]


def _fastest_other(ratios: dict[str, float]) -> str:
    """Of those in PyTorch, operator by operator. What is compiled has columns in tables()."""
    not_others = (OURS, LIMIT, OURS_JIT, JAX_JIT)
    others = {name: ratio for name, ratio in ratios.items() if name not in not_others}
    if not others:
        return ""
    fastest = min(others, key=others.__getitem__)
    return f"{others[fastest]:.2f} ({fastest})"


def limits(report: Result) -> str:
    """Per-sample gradients beside the gradient of the batch and the fastest other way."""
    rows = [
        [network, *_beside_limit(network, result["ratios"]), _fastest_other(result["ratios"])]
        for network, result in report["uses"]["per-sample gradients"].items()
    ]
    return table(
        ["Network", f"× {LIMIT}", "Target", "× faster than the fastest other in PyTorch"], rows
    )


def in_brief(report: Result) -> str:
    """All uses in one table: per-sample gradients beside their limit, each beside the fastest."""
    uses = report["uses"]
    rows = [
        [
            network,
            *_beside_limit(network, result["ratios"]),
            *(
                _fastest_other(entries[network]["ratios"]) if network in entries else ""
                for entries in uses.values()
            ),
        ]
        for network, result in uses["per-sample gradients"].items()
    ]
    return table(["Network", f"gradients × {LIMIT}", "Target", *uses], rows)


def setting(report: Result) -> str:
    """Where it was measured."""
    threads = report["threads"]
    versions = {"torch": report["torch"], **report["peers"]}
    return (
        f"{report['machine']}; {', '.join(f'{name} {v}' for name, v in versions.items())}; "
        f"{report['device']}, {threads} {'thread' if threads == 1 else 'threads'}; float32."
    )
