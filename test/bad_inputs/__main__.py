"""python -m test.bad_inputs [--count N] [--first N] [--jobs N] [--json FILE] [part of a name]
python -m test.bad_inputs --case NAME/NUMBER
"""

import argparse
import collections
import json
import pathlib

from test.bad_inputs import known
from test.bad_inputs.judge import FAULTS, STRICTER, Case, judge
from test.bad_inputs.run import spread, sweep


def show(verdict):
    print(f"{verdict.outcome}: {verdict.case} under {verdict.transform}: {verdict.done}")
    print(f"    plain: {verdict.plain[:300]}")
    print(f"    ours:  {verdict.ours[:300]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("part", nargs="?", default="")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--case")
    options = parser.parse_args()
    if options.case:
        name, _, number = options.case.rpartition("/")
        show(judge(Case(name, int(number))))
        return
    found = sweep(spread(options.count, options.first, options.part), options.jobs)
    if options.json:
        options.json.write_text("\n".join(json.dumps(verdict) for verdict in found))
    for verdict in found:
        if verdict.outcome in FAULTS and not known.reason(verdict):
            show(verdict)
    counts = collections.Counter(verdict.outcome for verdict in found)
    expected = sum(verdict.outcome in FAULTS and bool(known.reason(verdict)) for verdict in found)
    print(f"{len(found)} inputs: {dict(counts.most_common())}; {expected} faults are known")
    stricter = collections.Counter(
        v.case.rpartition("/")[0] for v in found if v.outcome == STRICTER
    )
    print(f"refused though valid, by operator: {dict(stricter.most_common(12))}")


if __name__ == "__main__":
    main()
