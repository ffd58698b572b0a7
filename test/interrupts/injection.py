"""Interrupts a job at every instruction of the package's, and says what differs afterwards."""

import contextlib
import dis
import gc
import os
import signal
import sys
import time

import torch
import torch.autograd.forward_ad as forward_ad

import functorch_ext
from functorch_ext import _C
from test.state import live_levels

OURS = os.path.dirname(functorch_ext.__file__) + os.sep

# How a handler of exceptions begins and ends. Python doesn't look for signals there: an interrupt
# would leave the handled exception in the thread's state, and what its traceback holds alive.
HANDLING = {dis.opmap[name] for name in ("PUSH_EXC_INFO", "COPY", "POP_EXCEPT", "RERAISE")}


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
        "handled exception": sys.exc_info()[1],
        "live levels": live_levels(),
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
        if event == "opcode" and frame.f_code.co_code[frame.f_lasti] not in HANDLING:
            self.count += 1
            if self.count == self.interrupt_at:
                raise KeyboardInterrupt
        return self._trace


def count_steps(job):
    with Steps() as steps:
        job.run()
    return steps.count


@contextlib.contextmanager
def known_state(job):
    """The state before a job, to be compared with that after it."""
    job.run()  # imports and caches
    gc.freeze()  # what exists isn't looked at: collecting what comes after is quick
    try:
        yield state(job.modules)
    finally:
        gc.unfreeze()


def differences(job, before):
    """How the state differs from before, or how a call after it goes wrong."""
    if live_levels() > before["live levels"]:
        gc.collect()  # tracebacks hold frames, and frames hold tensors, in cycles
    after = state(job.modules)
    found = [f"{name}: {after[name]} instead of {before[name]}" for name in before
             if after[name] != before[name]]  # fmt: skip
    if type(torch.zeros(2) + 1) is not torch.Tensor or _C.describe(torch.zeros(2)) is not None:
        found.append("torch.zeros gives a tensor of a vmap")
    if not found and not job.is_right():
        found.append("the next call is wrong")
    return found


def interrupt_at_steps(job, steps):
    """The first step of a job at which an interrupt leaves something behind, and what."""
    with known_state(job) as before:
        for step in steps:
            try:
                with Steps(step):
                    job.run()
            except KeyboardInterrupt:
                pass
            if found := differences(job, before):
                return {step: found}  # what is left would disturb the next
    return {}


def interrupt_by_signals(job, seconds, generator):
    """Interrupts a job at random times, for so long.

    Returns:
        The number of interrupts, and what the last of them left.
    """
    count = 0

    def interrupt(*_):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with known_state(job) as before:
            duration = min(_seconds(job) for _ in range(5))
            started = time.perf_counter()
            while time.perf_counter() - started < seconds:
                try:
                    signal.setitimer(signal.ITIMER_REAL, generator.uniform(1e-6, duration))
                    job.run()
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    count += 1
                if found := differences(job, before):
                    return count, found
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return count, []


def _seconds(job):
    started = time.perf_counter()
    job.run()
    return time.perf_counter() - started
