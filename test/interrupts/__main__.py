"""Interrupts transforms at every instruction, and looks at what is left.

``python -m test.interrupts [--job NAME] [--signals SECONDS]`` interrupts each job at each of its
instructions; with ``--signals`` also at random times, as Ctrl-C does.
"""

import argparse
import random
import sys

from test.interrupts.injection import count_steps, interrupt_at_steps, interrupt_by_signals
from test.interrupts.jobs import JOBS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", help="only this one")
    parser.add_argument("--signals", type=float, default=0, help="seconds of signals per job")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    total = failed = 0
    for name, job in JOBS.items():
        if options.job not in (None, name):
            continue
        job.run()  # imports and caches
        count = count_steps(job)
        failures = interrupt_at_steps(job, range(1, count + 1))
        text = f"{name}: {count} steps"
        if options.signals and not failures:
            signals, by_signal = interrupt_by_signals(
                job, options.signals, random.Random(options.seed)
            )
            count += signals
            failures = failures or by_signal
            text += f", {signals} signals"
        total, failed = total + count, failed + bool(failures)
        print(text + (f" FAILS {failures}" if failures else ""), flush=True)
    print(f"{total} interrupts, {failed} jobs fail")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
