"""Interrupts transforms at every instruction, and looks at what is left.

``python -m test.interrupts [--job NAME] [--signals SECONDS]`` interrupts each job at each of its
instructions; with ``--signals`` also at random times, as Ctrl-C does.
"""

import argparse
import collections
import os
import random
import signal
import sys
import time

import torch
import torch.autograd.forward_ad as forward_ad

import functorch_ext
from functorch_ext import _C

OURS = os.path.dirname(functorch_ext.__file__) + os.sep


def state(modules=()):
    """All that a transform changes while it runs."""
    return {
        "running level": _C.running_level(),
        "differentiating": _C.is_differentiating(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "forward mode": torch._C._is_fwd_grad_enabled(),
        "dual level": forward_ad._current_level,
        "included keys": repr(torch._C._dispatch_tls_local_include_set()),
        "excluded keys": repr(torch._C._dispatch_tls_local_exclude_set()),
        "saved tensors' hooks": torch._C._autograd._top_saved_tensors_default_hooks(True),
        "modules": [_tables(module) for module in modules],
    }


def _tables(root):
    """The attributes of modules, to the tensors' identity."""
    found = []
    for module in root.modules():
        for name, value in vars(module).items():
            is_table = isinstance(value, dict)
            found.append((name, {k: id(v) for k, v in value.items()} if is_table else id(value)))
    return found


class Steps:
    """Counts the package's instructions as they run, and interrupts ahead of one of them.

    Between any two of Python's instructions is where an interrupt can come; in the course of one,
    in the engine, it can't.
    """

    def __init__(self, interrupt_at=None):
        self.count, self.interrupt_at = 0, interrupt_at

    def __enter__(self):
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error):
        sys.settrace(None)

    def _trace(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.count += 1
            if self.count == self.interrupt_at:
                raise KeyboardInterrupt
        return self._trace


def count_steps(job):
    with Steps() as steps:
        job.run()
    return steps.count


def differences(job, before):
    """How the state differs from before, or how a call after it goes wrong."""
    after = state(job.modules)
    found = [f"{name}: {after[name]} instead of {before[name]}" for name in before
             if after[name] != before[name]]  # fmt: skip
    if type(torch.zeros(2) + 1) is not torch.Tensor or _C.describe(torch.zeros(2)) is not None:
        found.append("torch.zeros gives a tensor of a vmap")
    if not found and not job.is_right():
        found.append("the next call is wrong")
    return found


def interrupt_at_steps(job, steps):
    """The steps of a job at which an interrupt leaves something behind, and what."""
    job.run()
    before = state(job.modules)
    failures = {}
    for step in steps:
        try:
            with Steps(step):
                job.run()
        except KeyboardInterrupt:
            pass
        if found := differences(job, before):
            failures[step] = found
            break  # what is left would disturb the next
    return failures


def interrupt_by_signals(job, seconds, generator):
    """Interrupts a job at random times, for so long; the number of interrupts and the failures."""
    started = time.perf_counter()
    job.run()
    duration = max(time.perf_counter() - started, 1e-4)
    before = state(job.modules)
    count, failures = 0, collections.Counter()

    def interrupt(*_):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        while time.perf_counter() - started < seconds:
            try:
                signal.setitimer(signal.ITIMER_REAL, generator.uniform(1e-6, duration))
                job.run()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                count += 1
            if found := differences(job, before):
                failures.update(found)
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return count, failures


def main():
    from test.interrupted_jobs import JOBS

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
        print(text, "FAILS" if failures else "", dict(failures) or "", flush=True)
    print(f"{total} interrupts, {failed} jobs fail")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
