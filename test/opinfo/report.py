"""A table of what came of every operator and mode: `python -m test.opinfo.report [part of a name]`."""

import collections
import concurrent.futures
import sys

import torch

from test.opinfo import known
from test.opinfo.sweep import MODES, OPERATORS, SEVERITY, sweep


def main(part=""):
    torch.set_num_threads(1)
    names = [name for name in OPERATORS if part in name]
    with concurrent.futures.ProcessPoolExecutor() as pool:
        outcomes = dict(zip(names, pool.map(sweep, names, chunksize=8), strict=True))
    print(f"{'mode':12}" + "".join(f"{status:>8}" for status in SEVERITY))
    for mode in MODES:
        counts = collections.Counter(outcomes[name][mode].status for name in names)
        print(f"{mode:12}" + "".join(f"{counts[status]:8}" for status in SEVERITY))
    for status in ("WRONG", "error", "loop"):
        print(f"\n{status}:")
        for name in names:
            modes = [mode for mode in MODES if outcomes[name][mode].status == status]
            if modes:
                detail = outcomes[name][modes[0]].detail.partition("\n")[0]
                listed = {**known.ERRORS, **known.LOOPS}
                reason = listed.get((name, modes[0]), f"NOT LISTED: {detail[:120]}")
                print(f"  {name:45} {', '.join(modes):45} {reason}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
