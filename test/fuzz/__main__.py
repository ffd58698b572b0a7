"""Random programs, each compared with Python loops over plain torch.

    python -m test.fuzz --count 20000 --seed 0 [--jobs 2]   judges programs and prints the counts
    python -m test.fuzz --show SEED                         prints a program, and runs it
    python -m test.fuzz --minimise SEED                     makes a failing program smaller

A program has statements on views, in-place writes, indices, reductions, layers and so on, and
calls of transforms, nested up to four deep, whose functions see what is around them. The same text
runs twice: with functorch_ext's transforms, and with those of `oracle.py`, which are Python loops
and torch.autograd. What a seed gives depends on the tables in `operators.py`.
"""

import argparse
import sys
from collections import Counter

from test.fuzz.judge import BAD, REFUSED, UNJUDGED, Verdict, judge
from test.fuzz.worker import serve, verdicts


def report(count: int, seed: int, jobs: int, minimised: bool) -> int:
    kinds, refusals = Counter(), Counter()
    bad = []
    for found, verdict in verdicts(seed, count, jobs):
        kinds[verdict.kind] += 1
        if verdict.kind in (REFUSED, UNJUDGED):
            refusals[f"{verdict.kind}: {verdict.message[:100]}"] += 1
        if verdict.kind in BAD:
            bad.append((found, verdict))
            print(f"seed {found}: {verdict.kind}: {verdict.message[:300]}", flush=True)
    print(", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds)))
    for message, times in refusals.most_common(30):
        print(f"  {times} {message}")
    if minimised:
        for found, verdict in bad:
            show_smaller(found, verdict)
    return len(bad)


def show_smaller(seed: int, verdict: Verdict) -> None:
    from test.fuzz.generate import generate
    from test.fuzz.minimise import minimise

    print(f"\n# seed {seed}: {verdict.kind}: {verdict.message[:300]}")
    print(minimise(generate(seed), verdict).runnable(), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minimised", action="store_true", help="print failing programs, smaller")
    parser.add_argument("--show", type=int, metavar="SEED")
    parser.add_argument("--minimise", type=int, metavar="SEED")
    parser.add_argument("--serve", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        first, count, step = options.serve
        serve(first, count, step)
        return 0
    if options.show is not None:
        from test.fuzz.generate import generate

        program = generate(options.show)
        print(program.runnable(), flush=True)
        print(judge(program))
        return 0
    if options.minimise is not None:
        ((seed, verdict),) = verdicts(options.minimise, 1)
        if verdict.kind in BAD:
            show_smaller(seed, verdict)
        else:
            print(verdict)
        return 0
    return 1 if report(options.count, options.seed, options.jobs, options.minimised) else 0


if __name__ == "__main__":
    sys.exit(main())
